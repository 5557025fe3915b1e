"""How faithful a map is: confidence under perturbation, ROAD, ARCC."""
