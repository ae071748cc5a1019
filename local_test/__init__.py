"""A local SageMaker: its APIs, with the endpoints' containers as processes of this machine."""
