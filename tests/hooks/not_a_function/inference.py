model_fn = None
predict_fn = 3
