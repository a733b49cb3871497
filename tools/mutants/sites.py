"""Which edits the sources offer.

An edit replaces one stretch of a function's body, so it is a text: whatever compiles is a mutant, and the
compiler judges the rest. What has a name (rust/core/sync/guard.rs) is switched off by `make guards` and is
not edited here: the condition of a `guard!` as a whole, the step of a `duty!`, the order of an `in_order!`,
an ordering. What stands inside of them is.
"""

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tree_sitter_rust
from tree_sitter import Language, Node, Parser

ROOMS = ("sync", "rcu", "xarray", "page", "cache", "mm")
OPERATORS = ("swap", "delete", "condition", "comparison", "constant", "release")

# What is no part of the protocol, or what no test is meant to notice.
OUTSIDE = {
    "sync/model": "loom's face of the primitives",
    "sync/shuttle.rs": "shuttle's face of the primitives",
    "sync/clock.rs": "time of the model checkers",
    "sync/native.rs": "the shipped face: each method is one of std's",
    "sync/watched.rs": "locks of tools/tsan alone",
    "sync/guard.rs": "the names themselves",
    "sync/running.rs": "which operations a model has under way, for the table of pairs",
    "sync/mutant.rs": "switches names off",
    "sync/life.rs": "ends of threads, as the C library reports them: tests/teardown",
    "sync/wiped.rs": "memory that a fork wipes, and its stand-in for old kernels: tests/processes",
    "rcu/model.rs": "what models leave out of RCU",
    "rcu/membarrier.rs": "one system call, and what stands in for it",
    "cache/audit.rs": "a check that the tests use: an edit of it weakens a test",
}

# Macros whose arguments are expressions of the code that ships: read as calls. An underscore is as long as
# an exclamation mark, so places in the text stay as they are.
READ_AS_CALLS = re.compile(rb"\b(guard|duty|give_back|in_order|seeded|ord|ordered_fence)!(?=\()")
NAMED = {"guard_", "duty_", "give_back_", "in_order_", "seeded_", "ord_", "ordered_fence_"}
# What they say is for people, or for the tables of what the models run.
SAYS = {
    "debug_assert",
    "debug_assert_eq",
    "debug_assert_ne",
    "assert",
    "assert_eq",
    "panic",
    "unreachable",
    "print",
    "println",
    "operation",
}

COMPARISONS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}
LOCKS = re.compile(r"(?:try_)?(?:lock|read|write)(?:_again|_under_rcu|_patiently|_nested)?$")
# Functions of values alone.
PURE = re.compile(
    r"(?:Ok|Err|Some|from|into|len|min|max|div_ceil|then_some|count_ones|trailing_zeros|is_\w+"
    r"|(?:saturating|checked|wrapping)_\w+)$"
)
ITEMS = re.compile(r"_item$|^use_declaration$|^macro_definition$|comment$")
# Where a number is not computed at run time.
FIXED = {"const_item", "static_item", "array_type", "const_block", "let_condition"}
LEAVES = {"return_expression", "break_expression", "continue_expression"}
# What a model looks at, and empty in what ships (rust/core/sync): that something is used while it lives.
LIFE = re.compile(r"\blife\.(?:assert_alive|kill)$")


@dataclass(frozen=True)
class Edit:
    """One stretch of a file and what is put there instead."""

    id: str
    file: str  # below rust/core
    function: str
    operator: str
    start: int
    end: int
    old: str
    new: str
    #: Where the function begins, and the statement in which the edit is.
    body: int
    statement: str

    @property
    def text(self) -> str:
        """What an entry of survivors.toml may name it by."""
        return flat(f"{self.old} -> {self.new}")


@dataclass
class Function:
    """A function whose body can be edited, without those inside it."""

    name: str
    node: Node
    is_const: bool
    is_opaque: bool  # returns an opaque type: one body must be one type
    number: int = 0  # among those of its name in the file


def flat(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


@cache
def parser() -> Parser:
    """One for all."""
    return Parser(Language(tree_sitter_rust.language()))


def source_files(core: Path) -> list[Path]:
    """The files that are edited."""
    found = []
    for room in ROOMS:
        for path in sorted((core / room).rglob("*.rs")):
            short = path.relative_to(core).as_posix()
            if path.name != "tests.rs" and not any(
                short == out or short.startswith(f"{out}/") for out in OUTSIDE
            ):
                found.append(path)
    return found


class Source:
    """A file, parsed."""

    def __init__(self, file: str, text: bytes) -> None:
        self.file, self.text = file, text
        self.seen = READ_AS_CALLS.sub(lambda match: match[1] + b"_", text)
        self.tree = parser().parse(self.seen)
        self.functions = list(self._functions(self.tree.root_node, ""))
        among: dict[str, int] = {}
        for function in self.functions:
            function.number = among[function.name] = among.get(function.name, -1) + 1

    def of(self, node: Node) -> str:
        """What the file has there."""
        return self.text[node.start_byte : node.end_byte].decode()

    def _functions(self, node: Node, path: str) -> Iterator[Function]:
        tested = False
        for child in node.named_children:
            if child.type == "attribute_item":
                where = re.sub(r"not\(.*\)|cfg_attr.*", "", self.of(child), flags=re.DOTALL)
                tested = tested or re.search(r"\btest\b|\bspecmm_(tsan|loom|shuttle)\b", where) is not None
                continue
            if child.type.endswith("comment"):
                continue
            if not tested:
                yield from self._functions_of(child, path)
            tested = False

    def _functions_of(self, node: Node, path: str) -> Iterator[Function]:
        if node.type == "function_item":
            name = self.of(node.child_by_field_name("name"))
            body = node.child_by_field_name("body")
            head = self.text[node.start_byte : body.start_byte].decode()
            if name not in ("fmt", "audit"):
                is_const = re.match(r"(?:pub(?:\([\w ]+\))? )?const ", head) is not None
                returned = node.child_by_field_name("return_type")
                yield Function(
                    path + name, body, is_const, returned is not None and "impl " in self.of(returned)
                )
        elif node.type in ("impl_item", "trait_item", "mod_item"):
            body = node.child_by_field_name("body")
            named = node.child_by_field_name("type") or node.child_by_field_name("name")
            if body is not None:
                name = re.sub(r"<.*", "", self.of(named), flags=re.DOTALL)
                yield from self._functions(body, f"{path}{name}::")

    # --- statements

    def statements(self, block: Node) -> list[Node]:
        """Those of a block, the tail included; what is under an attribute is left out."""
        found, marked = [], False
        for child in block.named_children:
            if child.type == "attribute_item":
                marked = True
            elif not child.type.endswith("comment") and child.type != "label":
                if not marked and not ITEMS.search(child.type) and child.type != "empty_statement":
                    found.append(child)
                marked = False
        return found

    def places(self, function: Function) -> Iterator[tuple[Node, str]]:
        """Every statement of a function, in whichever block, with a name that outlives moves around it."""
        among: dict[str, int] = {}
        for node in (function.node, *inside(function.node)):
            if node.type != "block":
                continue
            for statement in self.statements(node):
                digest = hashlib.sha256(flat(self.of(statement)).encode()).hexdigest()[:8]
                told = f"{self.file}|{function.name}|{function.number}|{digest}"
                among[told] = among.get(told, -1) + 1
                yield statement, f"{told}|{among[told]}"

    # --- edits

    def edits(self) -> list[Edit]:
        """All of the file, in order."""
        found: list[Edit] = []
        for function in self.functions:
            if function.is_const:
                continue
            places = list(self.places(function))
            among: dict[str, int] = {}
            seen = set()
            for operator, start, end, new in self._edits(function):
                if (start, end, new) in seen:
                    continue
                seen.add((start, end, new))
                old = self.text[start:end].decode()
                told = "\0".join(
                    (self.file, function.name, str(function.number), operator, flat(old), flat(new))
                )
                number = among[told] = among.get(told, -1) + 1
                id_ = hashlib.sha256(f"{told}\0{number}".encode()).hexdigest()[:12]
                around = [place for place in places if place[0].start_byte <= start < place[0].end_byte]
                inside_of = max(around, key=lambda place: place[0].start_byte)[1]
                found.append(
                    Edit(
                        id_,
                        self.file,
                        function.name,
                        operator,
                        start,
                        end,
                        old,
                        new,
                        function.node.start_byte,
                        inside_of,
                    )
                )
        return found

    def _edits(self, function: Function) -> Iterator[tuple[str, int, int, str]]:
        for node in (function.node, *inside(function.node)):
            if node.type == "block":
                yield from self._block(node)
            elif node.type in ("if_expression", "while_expression", "match_pattern"):
                condition = node.child_by_field_name("condition")
                if condition is not None:
                    yield from self._condition(condition)
            elif node.type == "binary_expression":
                yield from self._binary(node)
            elif node.type == "integer_literal":
                yield from self._constant(node)

    def _block(self, block: Node) -> Iterator[tuple[str, int, int, str]]:
        statements = self.statements(block)
        for first, then in itertools.pairwise(statements):
            yield from self._swap(first, then)
        # What stands alone in an `unsafe` goes with it.
        is_whole = block.parent.type == "unsafe_block" and len(statements) == 1
        for statement in [] if is_whole else statements:
            # What is dropped last is dropped anyway.
            if statement != statements[-1] or not self.of(statement).startswith("drop("):
                yield from self._delete(statement)
        for at, statement in enumerate(statements):
            yield from self._release(statement, statements[at + 1 :])

    def _swap(self, first: Node, then: Node) -> Iterator[tuple[str, int, int, str]]:
        if any(self._leaves(one) or self._says(one) for one in (first, then)):
            return
        if self._is_quiet(first) and self._is_quiet(then):
            return
        if self._is_pure(first, then) or self._is_pure(then, first):
            return
        gap = self.text[first.end_byte : then.start_byte].decode()
        if "#[" in gap or (gap.strip(" \n") != "" and "//" not in gap):
            return
        one, two = self.of(first), self.of(then)
        if not two.endswith((";", "}")):
            two += ";"
            one = one.removesuffix(";") if first.type == "expression_statement" else one
        operator = "release" if two.startswith("drop(") else "swap"
        yield operator, first.start_byte, then.end_byte, two + gap + one

    def _leaves(self, statement: Node) -> bool:
        inner = statement.named_child(0) if statement.type == "expression_statement" else statement
        return inner is not None and inner.type in LEAVES

    def _says(self, statement: Node) -> bool:
        inner = statement.named_child(0) if statement.type == "expression_statement" else statement
        if inner is not None and inner.type == "call_expression":
            return LIFE.search(self.of(inner.child_by_field_name("function"))) is not None
        if inner is None or inner.type != "macro_invocation":
            return False
        return self.of(inner.child_by_field_name("macro")).rpartition("::")[2] in SAYS

    def _is_quiet(self, statement: Node) -> bool:
        """A binding of what needs no call, or of a closure: nobody sees when it happens."""
        if statement.type != "let_declaration":
            return False
        value = statement.child_by_field_name("value")
        if value is not None and value.type == "closure_expression" and not self.of(value).startswith("move"):
            return True
        loud = (
            "call_expression",
            "macro_invocation",
            "index_expression",
            "unary_expression",
            "try_expression",
        )
        return not any(node.type in loud for node in inside(statement))

    def _acts(self, statement: Node) -> bool:
        """Whether anything is called there, other than a constructor."""
        calls = [
            node
            for node in (statement, *inside(statement))
            if node.type in ("call_expression", "macro_invocation")
        ]
        return any(call.type != "call_expression" or not PURE.match(self._called(call)) for call in calls)

    def _is_pure(self, statement: Node, other: Node) -> bool:
        """A binding that is computed from values which the other statement does not change."""
        if statement.type != "let_declaration" or statement.child_by_field_name("value") is None:
            return False
        read = set()
        for node in inside(statement):
            if node.type in ("macro_invocation", "index_expression", "try_expression", "closure_expression"):
                return False
            if node.type == "call_expression" and not PURE.match(self._called(node)):
                return False
            if node.type in ("identifier", "self"):
                read.add(self.of(node))
        changed = set()
        for node in (other, *inside(other)):
            if node.type in ("assignment_expression", "compound_assignment_expr"):
                changed |= self._names(node.child_by_field_name("left"))
            elif node.type == "reference_expression" and "mut" in self.of(node)[:6]:
                changed |= self._names(node)
            elif node.type == "call_expression":
                changed |= self._names(node.child_by_field_name("function"))
        return not read & changed

    def _names(self, node: Node) -> set[str]:
        return {self.of(one) for one in (node, *inside(node)) if one.type in ("identifier", "self")}

    def _called(self, call: Node) -> str:
        """The last part of the name of what is called."""
        function = call.child_by_field_name("function")
        if function.type == "field_expression":
            return self.of(function.child_by_field_name("field"))
        return self.of(function).rpartition("::")[2]

    def _delete(self, statement: Node) -> Iterator[tuple[str, int, int, str]]:
        inner = statement.named_child(0) if statement.type == "expression_statement" else statement
        if inner is None or self._leaves(statement) or self._says(statement):
            return
        is_step = inner.type in (
            "call_expression",
            "assignment_expression",
            "compound_assignment_expr",
            "try_expression",
        )
        is_block = inner.type in ("for_expression", "match_expression", "block", "unsafe_block") or (
            inner.type == "if_expression" and inner.child_by_field_name("alternative") is not None
        )
        if is_step and (name := self._named(inner)):
            if name == "in_order_":
                for step in arguments(inner)[1:3]:
                    yield "delete", step.start_byte, step.end_byte, "()"
            return
        if is_block and any(node.type in LEAVES for node in inside(inner)):
            return
        if is_step or is_block or inner.type == "macro_invocation":
            yield (
                "delete",
                statement.start_byte,
                statement.end_byte,
                "" if self.of(statement).endswith(";") else "()",
            )

    def _named(self, node: Node | None) -> str | None:
        """The macro's name, if this is one of those that name things."""
        if node is None or node.type != "call_expression":
            return None
        name = self.of(node.child_by_field_name("function"))
        name = self.seen[node.start_byte : node.start_byte + len(name)].decode()
        return name if name in NAMED else None

    def _condition(self, node: Node) -> Iterator[tuple[str, int, int, str]]:
        """A whole condition: inverted, always, never."""
        if node.type == "let_condition":
            return
        if node.type == "let_chain":
            for operand in node.named_children:
                if operand.type != "let_condition" and not self._is_name(operand):
                    yield self._inverted(operand)
                    yield "condition", operand.start_byte, operand.end_byte, "true"
            return
        if self._is_name(node):
            return
        if not self._is_equality(node):
            yield self._inverted(node)
        for value in ("true", "false"):
            if self.of(node) not in ("true", "false"):
                yield "condition", node.start_byte, node.end_byte, value

    def _inverted(self, node: Node) -> tuple[str, int, int, str]:
        text = self.of(node)
        if node.type == "unary_expression" and text.startswith("!"):
            return "condition", node.start_byte, node.end_byte, text[1:]
        return "condition", node.start_byte, node.end_byte, f"!({text})"

    def _is_name(self, node: Node) -> bool:
        """Whether it is a named check, perhaps denied."""
        while node.type in ("parenthesized_expression", "unary_expression") and node.named_child_count == 1:
            node = node.named_child(0)
        return self._named(node) is not None

    def _is_equality(self, node: Node) -> bool:
        while node.type == "parenthesized_expression":
            node = node.named_child(0)
        return node.type == "binary_expression" and self.of(node.child_by_field_name("operator")) in (
            "==",
            "!=",
        )

    def _is_named_condition(self, node: Node) -> bool:
        """Whether it is what a `guard!` names."""
        while node.parent.type in ("parenthesized_expression", "unary_expression"):
            node = node.parent
        parent = node.parent.parent if node.parent.type == "arguments" else None
        return self._named(parent) == "guard_"

    def _binary(self, node: Node) -> Iterator[tuple[str, int, int, str]]:
        operator = node.child_by_field_name("operator")
        word = self.of(operator)
        if word in COMPARISONS:
            if not (word in ("==", "!=") and self._is_named_condition(node)):
                yield (
                    "comparison",
                    node.start_byte,
                    node.end_byte,
                    self._with(node, operator, COMPARISONS[word]),
                )
        elif word in ("&&", "||"):
            for side in ("left", "right"):
                operand = node.child_by_field_name(side)
                if operand.type == "let_condition" or self._is_name(operand):
                    continue
                if not self._is_equality(operand):
                    yield self._inverted(operand)
                yield "condition", operand.start_byte, operand.end_byte, "true" if word == "&&" else "false"

    def _with(self, node: Node, part: Node, new: str) -> str:
        return (
            self.text[node.start_byte : part.start_byte].decode()
            + new
            + self.text[part.end_byte : node.end_byte].decode()
        )

    def _constant(self, node: Node) -> Iterator[tuple[str, int, int, str]]:
        child, parent = node, node.parent
        if parent.type == "field_expression":
            return
        while parent is not None and parent.type not in ("block", "match_arm", "arguments"):
            is_fixed = (
                parent.type in FIXED or parent.type.endswith("pattern") or parent.type.startswith("type_")
            )
            values = (parent.child_by_field_name("condition"), parent.child_by_field_name("value"))
            if is_fixed and child not in values:
                return
            if parent.type == "array_expression" and parent.child_by_field_name("length") == child:
                return
            child, parent = parent, parent.parent
        text = self.of(node)
        yield "constant", node.start_byte, node.end_byte, f"({text} + 1)"
        if (
            int(re.match(r"0[xob][0-9a-fA-F_]+?(?=[iu]|$)|\d[\d_]*", text)[0].strip("_").replace("_", ""), 0)
            > 0
        ):
            yield "constant", node.start_byte, node.end_byte, f"({text} - 1)"

    def _locks(self, value: Node) -> bool:
        """Whether this is a call that returns a lock's guard or a read section."""
        if value.type in ("try_expression", "parenthesized_expression"):
            return self._locks(value.named_child(0))
        if value.type != "call_expression":
            return False
        called = self._called(value)
        if called in ("unwrap", "expect", "ok", "map_err"):
            return self._locks(value.child_by_field_name("function").named_child(0))
        if LOCKS.match(called):
            return True
        wraps = self._named(value) in ("seeded_", "give_back_", "duty_") or called == "Some"
        return wraps and any(self._locks(one) for one in arguments(value))

    def _release(self, statement: Node, after: list[Node]) -> Iterator[tuple[str, int, int, str]]:
        """A lock or a section that ends after its last use, rather than where the code says."""
        if statement.type != "let_declaration" or not after:
            return
        value, pattern = statement.child_by_field_name("value"), statement.child_by_field_name("pattern")
        if value is None or not self._locks(value):
            return
        names = [node for node in (pattern, *inside(pattern)) if node.type == "identifier"]
        names = [node for node in names if self.of(node)[0].islower() or self.of(node)[0] == "_"]
        if len(names) != 1:
            return
        name = self.of(names[0])
        word = re.compile(rf"\b{re.escape(name)}\b")
        dropped = [one for one in after if re.match(rf"drop\({re.escape(name)}\);?$", self.of(one))]
        uses = [at for at, one in enumerate(after) if one not in dropped and word.search(self.of(one))]
        last = uses[-1] + 1 if uses else 0
        if not any(self._acts(one) for one in after[last:] if one not in dropped):
            return
        line = "\n" + " " * after[last].start_point.column
        if dropped:
            at = after.index(dropped[0])
            # One statement earlier is a swap.
            if at - last < 2:
                return
            kept = self.text[after[last].start_byte : dropped[0].start_byte].decode().rstrip()
            yield "release", after[last].start_byte, dropped[0].end_byte, f"drop({name});{line}{kept}"
            return
        yield (
            "release",
            after[last].start_byte,
            after[last].end_byte,
            f"drop({name});{line}{self.of(after[last])}",
        )


def arguments(call: Node) -> list[Node]:
    """Those of a call, without comments."""
    return [
        one
        for one in call.child_by_field_name("arguments").named_children
        if not one.type.endswith("comment")
    ]


def inside(node: Node) -> Iterator[Node]:
    """Everything inside, in order; not what is for tests, for people, or the wrong side of a `seeded!`."""
    marked = False
    for child in node.named_children:
        if child.type == "attribute_item":
            marked = True
            continue
        if child.type.endswith("comment"):
            continue
        skipped = marked or child.type in (
            "const_item",
            "static_item",
            "const_block",
            "macro_invocation",
            "token_tree",
        )
        marked = False
        if skipped:
            continue
        yield child
        if child.type == "call_expression" and child.child_by_field_name("function").text == b"seeded_":
            right = [one for one in arguments(child)[1:] if not one.text.startswith(b"bug =")]
            for one in right:
                yield one
                yield from inside(one)
            continue
        yield from inside(child)


def all_edits(core: Path) -> list[Edit]:
    """Every edit of the sources, file by file."""
    found = []
    for path in source_files(core):
        found += Source(path.relative_to(core).as_posix(), path.read_bytes()).edits()
    return found
