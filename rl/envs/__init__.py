"""Episodes: real training and a formula, behind one interface and Gymnasium's."""
