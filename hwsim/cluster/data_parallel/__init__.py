"""Forms of data parallelism by name, one file each."""

from functools import cache

from hwsim.cluster.data_parallel._form import ALONE, Form
from hwsim.registry import Registry

FORMS = Registry("parallel form", "hwsim.cluster.data_parallel", "FORM")


@cache
def form_names() -> tuple[str, ...]:
    """Forms of data parallelism by name."""
    return FORMS.own()


@cache
def form(name: str) -> Form:
    """The form of that name.

    Raises:
        InputError: there is none.
    """
    found: Form = FORMS.get(name)
    return found


__all__ = ["ALONE", "FORMS", "Form", "form", "form_names"]
