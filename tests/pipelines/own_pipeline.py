"""A pipeline of somebody's own: one branch of the tree, with a step of theirs in it."""

from kfp import dsl

from collabopt.components import deployment_gate, import_model, load_dataset, pqat, prune


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def choose_sparsity(budget_bytes: int) -> float:
    """Decides how much is pruned."""
    return 0.6 if budget_bytes < 15_000 else 0.5


@dsl.pipeline(name="own-pipeline", description="Prune as much as the budget asks for, quantize, ship what qualifies.")
def own_pipeline(
    model: str = "example://digits",
    data: str = "example://digits",
    budget_bytes: int = 12_000,
    policy: str = "goals: [{figure: metric, max_drop: 0.05}]",
    epochs: int = 3,
):
    """Three components of collabopt between others."""
    dataset = load_dataset(source=data).outputs["dataset"]
    baseline = import_model(source=model, dataset=dataset).outputs["model"]
    sparsity = choose_sparsity(budget_bytes=budget_bytes)
    pruned = prune(parent=baseline, dataset=dataset, stage="pruned", target_sparsity=sparsity.output, epochs=epochs)
    leaf = pqat(parent=pruned.outputs["model"], dataset=dataset, stage="pqat", epochs=epochs)
    leaf.set_display_name("pqat")  # by this name, settings of a cluster know it
    gate = deployment_gate(
        baseline=baseline, dataset=dataset, pqat=leaf.outputs["model"], policy=policy, model_name="own"
    )
    gate.set_caching_options(False)
