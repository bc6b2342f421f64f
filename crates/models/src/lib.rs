//! Model dialects, streaming decoders, the scripted model, prices. Provider bytes are parsed only here.
