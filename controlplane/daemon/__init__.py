"""`lb-control run`: watches lb.yaml and Consul, serves operators, tells how it fares."""
