"""The experiments of the paper, one absl program each."""
