"""The kernels of sums over lists, in LLVM's vector instructions as those of `microkernel`.

A list is made in the memory of an array of floats: some of its elements, and as many whole numbers in the bytes of
others, which say where the vectors that they multiply are.
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


def enlist(rows: int) -> Any:
    """Leave of `rows` (1 or 2) rows of values, `length` apart, what is not zero in all of them, in order.

    `places` gets b * step for each that is left of sample b; the kernel returns how many are left.
    """

    @intrinsic
    def compact(typing, room, values, length, places, samples, step):  # type: ignore[no-untyped-def]
        def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
            room, values, length, places, samples, step = args
            e = Emitter(context, builder, sig.args[0])
            values, places = (e.place(e.pointer(sig.args[0], room, at)) for at in (values, places))
            values = [e.row(values, length, i) for i in range(rows)]
            zero, one, start = e.number(0), e.number(1), builder.block
            loop, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
            builder.cbranch(builder.icmp_signed(">", samples, zero), loop, after)

            builder.position_at_end(loop)
            b, count = builder.phi(zero.type), builder.phi(zero.type)
            given = [builder.load(builder.gep(row, [b])) for row in values]
            for row, value in zip(values, given, strict=True):
                builder.store(value, builder.gep(row, [count]))
            builder.store(e.narrow(builder.mul(b, step)), builder.gep(places, [count]))
            some = given[0] if rows == 1 else builder.or_(*given)
            some = builder.shl(some, some.type(1))  # the sign of a zero says nothing
            more = builder.add(count, builder.zext(builder.icmp_unsigned("!=", some, some.type(0)), zero.type))
            following = builder.add(b, one)
            for phi, value in ((b, following), (count, more)):
                phi.add_incoming(zero, start)
                phi.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", following, samples), loop, after)

            builder.position_at_end(after)
            left = builder.phi(zero.type)
            left.add_incoming(zero, start)
            left.add_incoming(more, loop)
            return left

        index = types.intp
        return index(room, *[index] * 5), emit

    return compact


def gather(rows: int, vectors: int) -> Any:
    """The kernel of sums over a list, `rows` x `vectors` registers, as a function callable inside Numba code:

        C[i, :] = alpha * sum_(e < count) values[i, e] * B[places[e], :] + C[i, :]          i < rows

    All lie in one array, `room`, where the sum begins from the elements at `begin`, unless that is negative; values is
    an array of rows `length` apart, `places` holds whole numbers (`put_place`). The sum runs in order.
    """

    @intrinsic
    def multiply(typing, room, c, c_row, begin, values, length, places, count, b, alpha, keep):  # type: ignore[no-untyped-def]
        index = types.intp
        signature = types.void(room, *[index] * 8, room.dtype, index)

        def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
            room, c, c_row, begin, values, length, places, count, b, alpha, keep = args
            e = Emitter(context, builder, sig.args[0])
            zero = e.number(0)
            fresh = builder.icmp_signed("<", begin, zero)
            begin = builder.select(fresh, c, begin)
            c, old, values, places, b = (e.pointer(sig.args[0], room, at) for at in (c, begin, values, places, b))
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
            builder.cbranch(builder.icmp_signed(">", count, zero), loop, after)

            builder.position_at_end(loop)
            k = builder.phi(ir.IntType(64))
            sums = [builder.phi(e.vector) for _ in olds]
            columns = builder.gep(b, [e.whole(builder.gep(places, [k]))])
            vector = [e.load(columns, v) for v in range(vectors)]
            factors = [e.broadcast(builder.load(builder.gep(row, [k]))) for row in values]
            pairs = [(factor, value) for factor in factors for value in vector]
            new = [e.fma(*pair, total) for pair, total in zip(pairs, sums, strict=True)]
            following = builder.add(k, e.number(1))
            k.add_incoming(zero, start)
            k.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, count), loop, after)

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
