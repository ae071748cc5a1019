"""What requests and answers of the tasks look like: parameters, inputs and answers, in types that need no torch.

OpenAPI, the documentation, the playground's forms and the tests are all made from these.
"""
