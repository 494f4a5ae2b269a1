"""Reference pictures of subjects: cropping, alignment, preparation for the encoder, mixing of features."""
