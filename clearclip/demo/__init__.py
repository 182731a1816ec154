"""The demo: photographs and words in, pictures out; from the shell (`command`) and in the browser (`web`)."""
