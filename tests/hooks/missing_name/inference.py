from json import no_such_name

model_fn = no_such_name
