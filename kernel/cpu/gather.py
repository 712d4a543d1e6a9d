"""The kernels of sums that leave out zeros, in LLVM's vector instructions as those of `microkernel`.

What is left is a list of whole numbers or the bits of a word, kept in the bytes of an array of floats.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .microkernel import Emitter


@intrinsic
def put_place(typing, room, at, value):  # type: ignore[no-untyped-def]
    """room[at] = value, a whole number in the bytes of an element; `get_place` reads it."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        room, at, value = args
        e = Emitter(context, builder, sig.args[0])
        builder.store(e.narrow(value), e.place(e.pointer(sig.args[0], room, at)))
        return context.get_dummy_value()

    return types.void(room, types.intp, types.intp), emit


@intrinsic
def get_place(typing, room, at):  # type: ignore[no-untyped-def]
    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        e = Emitter(context, builder, sig.args[0])
        return e.whole(e.pointer(sig.args[0], *args))

    return types.intp(room, types.intp), emit


@intrinsic
def put_word(typing, room, at, word):  # type: ignore[no-untyped-def]
    """The 64 bits of `word` in the bytes of room[at:], of two floats or a double; `get_word` reads them."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        room, at, word = args
        e = Emitter(context, builder, sig.args[0])
        place = builder.bitcast(e.pointer(sig.args[0], room, at), word.type.as_pointer())
        builder.store(word, place).align = e.bytes
        return context.get_dummy_value()

    return types.void(room, types.intp, types.intp), emit


@intrinsic
def get_word(typing, room, at):  # type: ignore[no-untyped-def]
    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        e = Emitter(context, builder, sig.args[0])
        word = builder.load(builder.bitcast(e.pointer(sig.args[0], *args), ir.IntType(64).as_pointer()))
        word.align = e.bytes
        return word

    return types.intp(room, types.intp), emit


def gather(rows: int, vectors: int) -> Any:
    """The kernel of sums over bits, `rows` x `vectors` registers, as a function callable inside Numba code:

        C[i, :] = alpha * sum_(k of word) values[i, k] * B[k, :] + C[i, :]          i < rows

    over the k whose bit of `word` is set, in order. All lie in one array, `room`, where the sum begins from the
    elements at `begin`, unless that is negative; rows of values are `length` apart, those of B `b_row`.
    """

    @intrinsic
    def multiply(typing, room, c, c_row, begin, values, length, word, b, b_row, alpha, keep):  # type: ignore[no-untyped-def]
        index = types.intp
        signature = types.void(room, *[index] * 8, room.dtype, index)

        def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
            room, c, c_row, begin, values, length, word, b, b_row, alpha, keep = args
            e = Emitter(context, builder, sig.args[0])
            zero = e.number(0)
            fresh = builder.icmp_signed("<", begin, zero)
            begin = builder.select(fresh, c, begin)
            c, old, values, b = (e.pointer(sig.args[0], room, at) for at in (c, begin, values, b))
            values = [e.row(values, length, i) for i in range(rows)]
            resume, start, loop, after = map(builder.append_basic_block, ("resume", "start", "loop", "after"))
            before = builder.block
            builder.cbranch(fresh, start, resume)
            builder.position_at_end(resume)
            olds = [e.load(e.row(old, c_row, i), v) for i in range(rows) for v in range(vectors)]
            builder.branch(start)

            builder.position_at_end(start)
            firsts = [builder.phi(e.vector) for _ in olds]
            for phi, value in zip(firsts, olds, strict=True):
                phi.add_incoming(e.zero, before)
                phi.add_incoming(value, resume)
            builder.cbranch(builder.icmp_signed("!=", word, zero), loop, after)

            builder.position_at_end(loop)
            bits = builder.phi(zero.type)
            sums = [builder.phi(e.vector) for _ in olds]
            k = builder.cttz(bits, ir.Constant(ir.IntType(1), 1))
            columns = builder.gep(b, [builder.mul(k, b_row)])
            vector = [e.load(columns, v) for v in range(vectors)]
            factors = [e.broadcast(builder.load(builder.gep(row, [k]))) for row in values]
            pairs = [(factor, value) for factor in factors for value in vector]
            new = [e.fma(*pair, total) for pair, total in zip(pairs, sums, strict=True)]
            following = builder.and_(bits, builder.sub(bits, e.number(1)))
            bits.add_incoming(word, start)
            bits.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("!=", following, zero), loop, after)

            builder.position_at_end(after)
            totals = [builder.phi(e.vector) for _ in olds]
            for phi, value, first in zip(sums + totals, new + new, firsts + firsts, strict=True):
                phi.add_incoming(first, start)
                phi.add_incoming(value, loop)
            e.finish(totals, c, c_row, vectors, alpha, keep)
            return context.get_dummy_value()

        return signature, emit

    return multiply


@intrinsic
def nonzeros(typing, a, at):  # type: ignore[no-untyped-def]
    """Bits that say which elements of the vector at `at` are not zero, NaN among them."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        e = Emitter(context, builder, sig.args[0])
        return e.bits(builder.fcmp_unordered("!=", e.load(e.pointer(sig.args[0], *args)), e.zero))

    return types.intp(a, types.intp), emit


@intrinsic
def ones(typing, bits):  # type: ignore[no-untyped-def]
    """How many bits are set."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.ctpop(args[0])

    return types.intp(types.intp), emit


@intrinsic
def spoilt(typing, a, rounds):  # type: ignore[no-untyped-def]
    """Not 0 if one of the first `rounds` times four vectors of a holds NaN or infinity: the only x with 0 x != 0."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        array, rounds = args
        e = Emitter(context, builder, sig.args[0])
        a, zero = e.pointer(sig.args[0], array, e.number(0)), e.number(0)
        before, loop, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("after")
        builder.cbranch(builder.icmp_signed(">", rounds, zero), loop, after)
        builder.position_at_end(loop)
        i, sums = builder.phi(zero.type), [builder.phi(e.vector) for _ in range(4)]
        start = builder.gep(a, [builder.mul(i, e.number(4 * e.lanes))])
        new = [e.fma(e.load(start, v), e.zero, total) for v, total in enumerate(sums)]
        following = builder.add(i, e.number(1))
        for phi, first, value in zip([i, *sums], [zero, *[e.zero] * 4], [following, *new], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, rounds), loop, after)

        builder.position_at_end(after)
        totals = [builder.phi(e.vector) for _ in new]
        for phi, value in zip(totals, new, strict=True):
            phi.add_incoming(e.zero, before)
            phi.add_incoming(value, loop)
        total = builder.fadd(builder.fadd(*totals[:2]), builder.fadd(*totals[2:]))
        return e.bits(builder.fcmp_unordered("!=", total, e.zero))

    return types.intp(a, types.intp), emit
