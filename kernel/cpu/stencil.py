"""A time step of neighbouring rows of the FitzHugh-Nagumo field, in LLVM's own vector instructions (see `field`).

    u' = u + (Du dt lap u + dt (u - u^3 - v))          lap s = (north + south) + (west + east) - 4 s
    v' = v + (Dv dt lap v + eps dt (u - alpha v - beta))

Both species and two rows at once: what a cell needs of its neighbours is then mostly in registers. A load across two
lines costs two, so only the west is loaded: the east is shifted in from the vector to come. Meanwhile a part of a
row that is needed later is asked for bit by bit: all at once would hold up what the caches do.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .microkernel import Emitter


def fetch(builder: Any, place: Any) -> None:
    """Asks for the cache line at a place, to be in the second cache some time later."""
    number = ir.IntType(32)
    place = builder.bitcast(place, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
    ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(ask, [place, *(ir.Constant(number, value) for value in (0, 2, 1))])  # to read, second cache, data


def rows_of_field(count: int, share: int) -> Any:
    """The kernel for `count` rows, 1 or 2, as a function callable inside Numba code.

    It makes the rows of n cells at out_0 and out_1 of a flat buffer, n in whole vectors, from the rows at in_0 to
    in_3, north to south, which do not overlap them; of a single row out_1 and in_3 are not used. Those are places
    of u: v lies `stride` behind. The cell before and the vector after them are read too. The n / share numbers of
    `soon` from `begin` on are to be in the second cache some time later.
    constants: Du dt, Dv dt, dt, eps dt, alpha, beta, 4.
    """

    @intrinsic
    def advance(typing, buffer, stride, n, out_0, out_1, in_0, in_1, in_2, in_3, soon, begin, constants):  # type: ignore[no-untyped-def]
        index = types.intp

        def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
            buffer, stride, n, *places, soon, begin, constants = args
            e = Emitter(context, builder, sig.args[0])
            field = [[e.pointer(sig.args[0], buffer, builder.add(at, shift)) for at in places]
                     for shift in (e.number(0), stride)]  # fmt: skip
            out = [rows[:count] for rows in field]
            given = [rows[2 : 4 + count] for rows in field]
            c = e.pointer(sig.args[-1], constants, e.number(0))
            c = [e.broadcast(builder.load(builder.gep(c, [e.number(i)]))) for i in range(7)]
            (Du, Dv, dt, eps, alpha, beta, four), minus = c, builder.fneg
            own = range(1, count + 1)  # of the given rows, those that are made anew
            start = [[e.load(rows[r]) for r in own] for rows in given]
            soon = e.pointer(sig.args[-3], soon, begin)
            before = builder.block
            loop, after = builder.append_basic_block("cells"), builder.append_basic_block("after")
            builder.branch(loop)

            builder.position_at_end(loop)
            j = builder.phi(ir.IntType(64))
            held = [[builder.phi(e.vector) for _ in own] for _ in given]
            following = builder.add(j, e.number(e.lanes))
            fetch(builder, builder.gep(soon, [builder.udiv(j, e.number(share))]))
            ahead: list[list[Any]] = []
            laplacian: list[list[Any]] = []
            for rows, mine in zip(given, held, strict=True):
                column = [e.load(builder.gep(rows[0], [j])), *mine, e.load(builder.gep(rows[count + 1], [j]))]
                ahead.append([e.load(builder.gep(rows[r], [following])) for r in own])
                laplacian.append([])
                for r in own:
                    west = e.load(builder.gep(rows[r], [builder.sub(j, e.number(1))]))
                    east = e.shuffle(column[r], ahead[-1][r - 1], list(range(1, e.lanes + 1)))
                    around = builder.fadd(builder.fadd(column[r - 1], column[r + 1]), builder.fadd(west, east))
                    laplacian[-1].append(e.fma(minus(four), column[r], around))
            for u, v, lap_u, lap_v, to_u, to_v in zip(*held, *laplacian, *out, strict=True):
                reaction = builder.fsub(e.fma(minus(builder.fmul(u, u)), u, u), v)
                e.store(e.fma(dt, reaction, e.fma(Du, lap_u, u)), builder.gep(to_u, [j]))
                reaction = builder.fsub(e.fma(minus(alpha), v, u), beta)
                e.store(e.fma(eps, reaction, e.fma(Dv, lap_v, v)), builder.gep(to_v, [j]))
            j.add_incoming(e.number(0), before)
            j.add_incoming(following, loop)
            for phis, begun, coming in zip(held, start, ahead, strict=True):
                for phi, first, later in zip(phis, begun, coming, strict=True):
                    phi.add_incoming(first, before)
                    phi.add_incoming(later, loop)
            builder.cbranch(builder.icmp_signed("<", following, n), loop, after)
            builder.position_at_end(after)
            return context.get_dummy_value()

        places = [index] * 8
        return types.void(buffer, *places, soon, index, constants), emit

    return advance
