"""Loops are found in what nvdisasm prints: nested, left by calls, side by side."""

import pytest
from cuda_binary import Instruction, demangle
from sass import Flow


def program(text):
    """Lines of ``[@predicate] opcode [operands]``, 16 bytes each, the first at 0."""
    made = []
    for i, line in enumerate(text.strip().splitlines()):
        words = line.split()
        predicate = words.pop(0) if words[0].startswith("@") else ""
        made.append(Instruction(16 * i, predicate, words[0], words[1] if words[1:] else ""))
    return made


def bodies(loops):
    return [(sorted(loop.body), bodies(loop.inner)) for loop in loops]


def test_loops_lie_within_loops():
    code = program("""
        MOV R0,R1
        LDG.E R2,[R4]
        FADD R3,R3,R2
        @P0 BRA 0x20
        @!P1 BRA 0x10
        EXIT
    """)
    (outer,) = Flow(code).loops
    assert bodies([outer]) == [([1, 2, 3, 4], [([2, 3], [])])]
    assert outer.own == {1, 4}


def test_two_ways_back_are_one_loop():
    code = program("""
        FADD R3,R3,R2
        @P0 BRA 0x0
        FADD R3,R3,R2
        BRA P1,0x0
        EXIT
    """)
    assert bodies(Flow(code).loops) == [([0, 1, 2, 3], [])]


def test_code_moved_out_of_the_way_is_not_a_loop():
    code = program("""
        @P0 BRA 0x30
        FADD R3,R3,R2
        EXIT
        FMUL R3,R3,R2
        BRA 0x10
    """)
    assert Flow(code).loops == ()


def test_a_call_of_an_address_leaves_a_loop_and_one_of_a_subroutine_does_not():
    code = program("""
        FADD R3,R3,R2
        CALL.REL.NOINC $__internal_0_$__cuda_sm3x_div_rn_noftz_f32_slowpath
        @P0 CALL.REL.NOINC 0x40
        BRA 0x0
        EXIT
        RET.REL.NODEC R4,kernel
    """)
    assert bodies(Flow(code).loops) == [([0, 1, 2, 3], [])]


def test_a_loop_with_two_ways_in_is_refused():
    code = program("""
        @P0 BRA 0x20
        FADD R3,R3,R2
        FADD R3,R3,R2
        @P1 BRA 0x10
        EXIT
    """)
    with pytest.raises(NotImplementedError, match="two ways in"):
        Flow(code).loops  # noqa: B018


def test_a_computed_branch_is_refused():
    with pytest.raises(NotImplementedError, match="BRX"):
        Flow(program("BRX R4"))


def test_names_are_demangled():
    assert demangle("_ZN7camfuse4cuda8map_rowsIfLi4EEEvi") == (
        "void camfuse::cuda::map_rows<float, 4>(int)"
    )
    assert demangle("plain") == "plain"
