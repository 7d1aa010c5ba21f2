"""A written program as data: functions of statements, before any style renders them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A condition and its opposite, as code."""

    yes: str
    no: str

    def opposite(self) -> Condition:
        """The other way round."""
        return Condition(yes=self.no, no=self.yes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of a function. default: code, or None where a call must give it."""

    name: str
    default: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """Something that is computed, where `when` holds. targets: the variables it sets."""

    targets: tuple[str, ...]
    when: Condition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Statement):
    """`target = source`."""

    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStatement(Statement):
    """A layer made and called. settings: (key, code) in writing order, the `leading` ones without their keys.

    rel: its name without that of the block. attribute: where the subclass style keeps it. maker: for a layer that is
    called again, the variable that holds it. again: it was made before. args, kwargs: code. alias: what the file calls
    the class with the settings that all its layers share. note: a comment.
    """

    cls: str
    rel: str
    attribute: str
    args: tuple[str, ...]
    kwargs: tuple[tuple[str, str], ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    shared: bool = False
    again: bool = False
    alias: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpStatement(Statement):
    """A call of `keras.ops`."""

    op: str
    args: tuple[str, ...]
    kwargs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStatement(Statement):
    """A call of a function of the program. arguments: (parameter, code), those at their defaults left out.

    headers: loops around it, outermost first, as (variables, iterable). carried: the argument that goes
    round. gathers: the results are collected in the list that is the target. label: the name as code, where it isn't
    made of `rel`. model: the name of the model that it is made, where that isn't its name.
    """

    function: Function
    rel: str
    attribute: str
    args: tuple[str, ...]
    arguments: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    carried: int = 0
    gathers: bool = False
    label: str = ""
    nested: bool = False
    model: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class Function:
    """A block of the network. inputs: variables of its tensors; `gathered`: the one is a list of tensors.

    cls: the PyTorch class it stands for. nested: it is made a model of its own wherever it is called. uses: how many
    calls of PyTorch modules it stands for. prefixed: its layers' names begin with the name that it is given.
    locals: (variable, code) at its head. arrays: some call gives it an array.
    """

    name: str
    cls: str
    inputs: tuple[str, ...] = ()
    gathered: bool = False
    parameters: tuple[Parameter, ...] = ()
    body: tuple[Statement, ...] = ()
    returns: tuple[str, ...] = ()
    nested: bool = False
    uses: int = 0
    prefixed: bool = True
    locals: tuple[tuple[str, str], ...] = ()
    arrays: bool = False

    @property
    def named(self) -> bool:
        """Whether it takes the name that its layers' names begin with."""
        if self.nested:
            return True
        calls = any(isinstance(s, CallStatement) and s.function.named for s in self.body)
        return self.prefixed and (calls or any(isinstance(s, LayerStatement) for s in self.body))

    def parameter(self, name: str) -> Parameter:
        """The parameter of that name. Raises KeyError."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise KeyError(name)
