"""What the report says of settings of single layers."""

from collabopt.components.engine.report.html import render_report

PRUNING = {"target_sparsity": 0.5, "layers": {"conv": "exclude", "p*": {"target_sparsity": 0.4}}}
CLUSTERING = {"number_of_clusters": 16, "layers": {"classes": {"number_of_clusters": 8}}}


def with_settings(case, settings):
    """The case, with settings for stages by name."""
    leaves = {
        name: leaf.model_copy(
            update={
                "lineage": [
                    step.model_copy(update={"settings": settings.get(step.stage, step.settings)})
                    for step in leaf.lineage
                ]
            }
        )
        for name, leaf in case.leaves.items()
    }
    return case.decision, case.baseline, leaves, case.tflites


def test_what_was_asked_of_every_layer_stands_beside_what_the_file_holds(make_case, parse):
    case = make_case(leaves=["ptq", "pqat", "pcqat"])
    settings = {"pruned": PRUNING, "pruned_clustered": CLUSTERING}
    html = render_report(*with_settings(case, settings))
    assert "layer-plans" in parse(html).ids
    section = parse(html[html.index('<section id="layer-plans"') : html.index('<section id="lineage"')]).text
    assert "pqat" in section
    assert "ptq " not in section.replace("pruned_ptq", "")
    tensors = {each.layer: each for each in case.leaves["pcqat"].deployed.weights}
    of_pcqat = section[section.index("pcqat") :] if section.index("pcqat") > section.index(" pqat") else section
    shares = {name: f"{100 * each.zero_fraction:.1f}" for name, each in tensors.items()}
    assert f"conv ● left dense {shares['conv']}" in of_pcqat
    assert f"pointwise ● 40.0 % {shares['pointwise']}" in of_pcqat
    assert f"classes ● 50.0 % {shares['classes']}" in of_pcqat
    assert f"8 {tensors['classes'].distinct_values}" in of_pcqat
    assert f"16 {tensors['conv'].distinct_values}" in of_pcqat


def test_where_no_layer_has_settings_of_its_own_there_is_no_such_section(make_case, parse):
    case = make_case(leaves=["ptq", "pqat", "pcqat"])
    plain = {"pruned": {"target_sparsity": 0.5, "layers": {}}}
    assert "layer-plans" not in parse(render_report(*with_settings(case, plain))).ids
    assert "layer-plans" not in parse(render_report(*case.arguments)).ids
