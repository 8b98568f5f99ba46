"""Refusals of options that a program has by its config and yet does nothing with."""

from collections.abc import Mapping

from absl import flags

from gembml.training import InputError


def refuse(options: Mapping[str, str]) -> None:
    """Raise if ``--config.NAME`` is given for a key of ``options``, whose value says why not.

    Raises:
      InputError: for the first that is given.
    """
    for name, reason in options.items():
        if flags.FLAGS[f"config.{name}"].present:
            raise InputError(f"--config.{name} {reason}: leave it out.")
