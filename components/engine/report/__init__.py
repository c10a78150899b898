"""What people look at: the HTML report of a decision, and the model card of the winner."""
