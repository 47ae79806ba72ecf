"""A joint set: names, tree, mirror and what each joint means."""

from dataclasses import dataclass

from propose_prob.errors import InputError

__all__ = ["Skeleton", "build"]


@dataclass(frozen=True)
class Skeleton:
    """An ordered set of joints that form a tree.

    Attributes:
        name: The set's name, as `get_skeleton` finds it.
        joint_names: Names in storage order, J of them.
        parents: Index of each joint's parent; -1 marks the root.
        mirror: Permutation that exchanges left and right: `mirror[j]` is the other side's joint.
        meanings: The shared meaning of each joint, or `None` where no other set has such a joint.

    Raises:
        ValueError: If the lengths differ, there is not exactly one root, the parents form a cycle,
            or `mirror` is not an involution that keeps the parents.

    Example:
        >>> from propose_prob.pose.skeleton import H36M_17
        >>> H36M_17.index("RWrist"), H36M_17.joint_names[H36M_17.mirror[16]]
        (16, 'LWrist')
        >>> H36M_17.bones[0]
        (1, 0)
    """

    name: str
    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    mirror: tuple[int, ...]
    meanings: tuple[str | None, ...]

    def __post_init__(self) -> None:
        count = len(self.joint_names)
        for field in ("parents", "mirror", "meanings"):
            length = len(getattr(self, field))
            if length != count:
                raise ValueError(f"{self.name}: expected {count} {field}, got {length}")
        if len(set(self.joint_names)) != count:
            raise ValueError(f"{self.name}: joint names must differ")
        if self.parents.count(-1) != 1:
            raise ValueError(f"{self.name}: expected one root (parent -1), got {self.parents}")
        if sorted(self.mirror) != list(range(count)):
            raise ValueError(f"{self.name}: mirror is not a permutation of 0..{count - 1}")
        for joint in range(count):
            ancestor, steps = joint, 0
            while ancestor != -1:
                ancestor, steps = self.parents[ancestor], steps + 1
                if steps > count:
                    raise ValueError(f"{self.name}: the parents of joint {joint} form a cycle")
            parent = self.parents[joint]
            mirrored_parent = -1 if parent == -1 else self.mirror[parent]
            if self.mirror[self.mirror[joint]] != joint:
                raise ValueError(f"{self.name}: mirroring joint {joint} twice does not return it")
            if self.parents[self.mirror[joint]] != mirrored_parent:
                raise ValueError(f"{self.name}: mirroring changes the parent of joint {joint}")

    @property
    def num_joints(self) -> int:
        """The number of joints J."""
        return len(self.joint_names)

    @property
    def root(self) -> int:
        """The index of the joint without a parent."""
        return self.parents.index(-1)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """The (child, parent) pairs, J - 1 of them, in joint order."""
        return tuple((child, parent) for child, parent in enumerate(self.parents) if parent != -1)

    def index(self, name: str) -> int:
        """Return the index of the joint called `name`.

        Raises:
            InputError: If this set has no such joint; the message lists those it has.
        """
        if name not in self.joint_names:
            known = ", ".join(self.joint_names)
            raise InputError(f"{self.name} has no joint {name!r}; its joints are {known}")
        return self.joint_names.index(name)


_OTHER_SIDE = {"R": "L", "L": "R", "r": "l", "l": "r"}
_OTHER_SIDE_WORD = {"right": "left", "left": "right"}


def _other_side(name: str, names: tuple[str, ...]) -> str:
    side, _, rest = name.partition("_")
    swapped = [
        f"{_OTHER_SIDE_WORD[side]}_{rest}" if side in _OTHER_SIDE_WORD else "",
        _OTHER_SIDE.get(name[0], name[0]) + name[1:],
    ]
    return next((candidate for candidate in swapped if candidate in names), name)


def build(name: str, *joints: tuple[str, str | None, str | None]) -> Skeleton:
    """Build a set from rows (joint, parent, meaning); left and right are told apart by name.

    Names of the two sides differ in `R` and `L` (either case) at the start, or in a leading
    `right_` and `left_`.

    Example:
        >>> hips = (("LHip", "Hips", "left_hip"), ("RHip", "Hips", "right_hip"))
        >>> skeleton = build("hips", ("Hips", None, "pelvis"), *hips)
        >>> skeleton.parents, skeleton.mirror
        ((-1, 0, 0), (0, 2, 1))
    """
    names = tuple(joint for joint, _, _ in joints)
    return Skeleton(
        name=name,
        joint_names=names,
        parents=tuple(-1 if parent is None else names.index(parent) for _, parent, _ in joints),
        mirror=tuple(names.index(_other_side(joint, names)) for joint in names),
        meanings=tuple(meaning for _, _, meaning in joints),
    )
