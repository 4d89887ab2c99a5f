"""Makes, trains, exports, quantises and judges the model that Volley ships."""
