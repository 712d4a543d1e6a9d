"""The matrix kernels, in LLVM's own vector instructions, because plain loops reach a third of their speed.

`block`: a block of C stays in registers while products stream through it,

    C[i, :] = alpha * sum_k A[i, k] * B[k, :] + C[i, :]          i < rows

A is read one scalar at a time (any strides, so W and its transpose need no copy), B and C one vector of samples
or synapses at a time (unit stride). k takes all values below `depth`, or so many from a list of whole numbers
(`gather.put_place`). The sum over k runs in order for each element, so a result never depends on what else is in the
block. `dots` serves a single sample; `transpose_square` turns samples-first arrays into features-first
tiles and back.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

VECTOR_BYTES = 64
# With AVX-512 a vector is one of 32 registers. Else it is taken for two of 16, those of AVX2.
WIDE = bool(llvm.get_host_cpu_features().get("avx512f"))
REGISTER_BYTES = VECTOR_BYTES if WIDE else VECTOR_BYTES // 2
# Rows of the blocks of a product: 14 x 2 vectors fill 32 registers, and 10 rows fit ten classes; 6 x 1 fill 16.
HEIGHTS = (14, 10, 4, 1) if WIDE else (6, 4, 2, 1)
PATCHES = (16, 4, 1) if WIDE else (4, 2, 1)  # those of a correlation
# So many rows of W at a time for W^T s: a column of 512 rows of 2 KB meets in too few sets of a cache of 512 KB, and
# from beyond the second cache of Intel's cores it comes too slowly. Zen 4 takes it whole.
ZEN = llvm.get_host_cpu_name().startswith("znver")
DEPTH = (1 << 62 if ZEN else 128) if WIDE else 64
SUMS = 4  # interleaved sums that make a row's product with a vector
DOTS = 10  # rows of `dots`


class Emitter:
    """LLVM instructions on vectors of so many bytes of the element type of `kind`, a flat Numba array."""

    def __init__(self, context: Any, builder: Any, kind: Any, width: int = VECTOR_BYTES) -> None:
        self.context, self.builder = context, builder
        self.scalar = context.get_value_type(kind.dtype)
        self.bytes = 4 if isinstance(self.scalar, ir.FloatType) else 8
        self.lanes = width // self.bytes
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.undefined = ir.Constant(self.vector, ir.Undefined)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)

    def number(self, value: int) -> Any:
        return ir.Constant(ir.IntType(64), value)

    def pointer(self, kind: Any, array: Any, offset: Any) -> Any:
        data = self.context.make_array(kind)(self.context, self.builder, value=array).data
        return self.builder.gep(data, [offset])

    def row(self, pointer: Any, stride: Any, index: int) -> Any:
        return self.builder.gep(pointer, [self.builder.mul(stride, self.number(index))])

    def load(self, pointer: Any, vector: int = 0) -> Any:
        place = self.builder.gep(pointer, [self.number(vector * self.lanes)])
        value = self.builder.load(self.builder.bitcast(place, self.vector.as_pointer()))
        value.align = self.bytes
        return value

    def store(self, value: Any, pointer: Any, vector: int = 0) -> None:
        place = self.builder.gep(pointer, [self.number(vector * self.lanes)])
        self.builder.store(value, self.builder.bitcast(place, self.vector.as_pointer())).align = self.bytes

    def place(self, pointer: Any) -> Any:
        """Where an element holds a whole number in its bytes."""
        return self.builder.bitcast(pointer, ir.IntType(8 * self.bytes).as_pointer())

    def narrow(self, value: Any) -> Any:
        """A whole number as `place` has room for it."""
        return value if self.bytes == 8 else self.builder.trunc(value, ir.IntType(32))

    def whole(self, pointer: Any) -> Any:
        """The whole number that an element holds."""
        return self.builder.sext(self.builder.load(self.place(pointer)), ir.IntType(64))

    def bits(self, truths: Any) -> Any:
        """A vector of truths as the bits of a number."""
        return self.builder.zext(self.builder.bitcast(truths, ir.IntType(self.lanes)), ir.IntType(64))

    def finish(self, totals: list[Any], c: Any, c_row: Any, vectors: int, alpha: Any, keep: Any) -> None:
        """C = alpha * totals (+ C if keep), rows of so many vectors each; ends the kernel's last block."""
        builder, gain = self.builder, self.broadcast(alpha)
        add, put, end = (builder.append_basic_block(name) for name in ("add", "put", "end"))
        builder.cbranch(builder.icmp_signed("!=", keep, self.number(0)), add, put)
        for where in (add, put):
            builder.position_at_end(where)
            for i in range(0, len(totals), vectors):
                c_i = self.row(c, c_row, i // vectors)
                for v, total in enumerate(totals[i : i + vectors]):
                    kept = self.fma(gain, total, self.load(c_i, v)) if where is add else builder.fmul(gain, total)
                    self.store(kept, c_i, v)
            builder.branch(end)
        builder.position_at_end(end)

    def shuffle(self, a: Any, b: Any, lanes: list[int]) -> Any:
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
        return self.builder.shuffle_vector(a, b, mask)

    def quarter(self, pointer: Any) -> Any:
        """SUMS elements."""
        value = self.builder.load(self.builder.bitcast(pointer, ir.VectorType(self.scalar, SUMS).as_pointer()))
        value.align = self.bytes
        return value

    def join(self, quarters: list[Any]) -> Any:
        """One or two of these as one vector."""
        first, *rest = quarters
        return self.shuffle(first, rest[0], list(range(2 * SUMS))) if rest else first

    def broadcast(self, value: Any) -> Any:
        first = self.builder.insert_element(self.undefined, value, ir.Constant(ir.IntType(32), 0))
        return self.shuffle(first, self.undefined, [0] * self.lanes)

    def fence(self) -> None:
        """Keeps the loads that follow behind it: moved up, they take registers from the sums."""
        self.builder.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], True)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        name = f"llvm.fma.v{self.lanes}f{8 * self.bytes}"
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [a, b, c])

    def transpose(self, rows: list[Any]) -> list[Any]:
        """A square of lanes x lanes elements: swap ever smaller off-diagonal squares (Eklundh 1972)."""
        rows, size = list(rows), self.lanes // 2
        while size:
            for i in range(self.lanes):
                if i & size == 0:
                    a, b, n = rows[i], rows[i + size], self.lanes
                    rows[i] = self.shuffle(a, b, [n + j - size if j & size else j for j in range(n)])
                    rows[i + size] = self.shuffle(a, b, [n + j if j & size else j + size for j in range(n)])
            size //= 2
        return rows


def block(rows: int, vectors: int) -> Any:
    """The kernel for a block of `rows` x `vectors` registers, as a function callable inside Numba code."""

    @intrinsic
    def multiply(typing, c, c_at, c_row, a, a_at, a_row, a_step, b, b_at, b_row, depth, places, alpha, keep):  # type: ignore[no-untyped-def]
        """The list begins at `places` in b; with 0 there is none."""
        index = types.intp
        signature = types.void(c, index, index, a, index, index, index, b, *[index] * 4, c.dtype, index)

        def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
            c, c_at, c_row, a, a_at, a_row, a_step, b, b_at, b_row, depth, places, alpha, keep = args
            e = Emitter(context, builder, sig.args[0])
            listed = builder.icmp_signed("!=", places, e.number(0))
            places = e.place(e.pointer(sig.args[7], b, places))
            c, a, b = (e.pointer(sig.args[i], array, at) for i, array, at in ((0, c, c_at), (3, a, a_at), (7, b, b_at)))
            a_rows = [e.row(a, a_row, i) for i in range(rows)]
            zero, one = e.number(0), e.number(1)

            def places_of(index: Any, *_: Any) -> list[Any]:
                # Without a list this reads what is at the start of b, and forgets it.
                k = e.whole(builder.gep(places, [builder.select(listed, index, zero)]))
                k = builder.select(listed, k, index)
                return [builder.mul(k, a_step), builder.mul(k, b_row)]

            def next_places(_: Any, a_k: Any, b_k: Any) -> list[Any]:
                return [builder.add(a_k, a_step), builder.add(b_k, b_row)]

            def sum_in(loop: Any, after: Any, first: list[Any], next_of: Any, b: Any, width: int) -> list[Any]:
                """The sums over k at the end of `loop`, whose places in A and B begin at `first`."""
                before = builder.block
                builder.position_at_end(loop)
                index, a_k, b_k = (builder.phi(zero.type) for _ in range(3))
                sums = [builder.phi(e.vector) for _ in range(rows * width)]
                columns = [e.load(builder.gep(b, [b_k]), v) for v in range(width)]
                new = []
                for i in range(rows):
                    weight = e.broadcast(builder.load(builder.gep(a_rows[i], [a_k])))
                    if not WIDE:
                        e.fence()
                    new += [e.fma(weight, columns[v], sums[i * width + v]) for v in range(width)]
                following = builder.add(index, one)
                # The next addresses now: computed where they are used, they make LLVM spill sums.
                nexts = next_of(following, a_k, b_k)
                for phi, start, value in zip([index, a_k, b_k], [zero, *first], [following, *nexts], strict=True):
                    phi.add_incoming(start, before)
                    phi.add_incoming(value, loop)
                for total, value in zip(sums, new, strict=True):
                    total.add_incoming(e.zero, before)
                    total.add_incoming(value, loop)
                builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
                builder.position_at_end(before)
                return new

            def put(c: Any, b: Any, width: int) -> None:
                """C[i, :] of so many vectors, all of whose sums are in registers."""
                some, before = builder.icmp_signed(">", depth, zero), builder.block
                ways = {before: [e.zero] * (rows * width)}
                if WIDE:
                    first = places_of(zero)
                    loop, after = builder.append_basic_block("depth"), builder.append_basic_block("after")
                    ways[loop] = sum_in(loop, after, first, places_of, b, width)
                    builder.cbranch(some, loop, after)
                else:  # Without a list a loop of its own: the choice takes time from fewer products.
                    begin, loop, plain, after = map(builder.append_basic_block, ("begin", "depth", "plain", "after"))
                    builder.cbranch(some, begin, after)
                    builder.position_at_end(begin)
                    first = places_of(zero)
                    ways[loop] = sum_in(loop, after, first, places_of, b, width)
                    ways[plain] = sum_in(plain, after, [zero, zero], next_places, b, width)
                    builder.cbranch(listed, loop, plain)
                builder.position_at_end(after)
                totals = [builder.phi(e.vector) for _ in range(rows * width)]
                for where, values in ways.items():
                    for total, value in zip(totals, values, strict=True):
                        total.add_incoming(value, where)
                e.finish(totals, c, c_row, width, alpha, keep)

            width = vectors if WIDE else min(vectors, max(1, 4 // rows))  # 8 registers and more hide the latency
            if width == vectors:
                put(c, b, width)
            else:
                with cgutils.for_range(builder, e.number(vectors // width)) as part:
                    at = builder.mul(part.index, e.number(width * e.lanes))
                    put(builder.gep(c, [at]), builder.gep(b, [at]), width)
            return context.get_dummy_value()

        return signature, emit

    return multiply


@intrinsic
def transpose_square(typing, out, out_at, out_row, source, source_at, source_row):  # type: ignore[no-untyped-def]
    """out[j, i] = source[i, j] for a square of one vector by one vector."""
    index = types.intp

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        out, out_at, out_row, source, source_at, source_row = args
        e = Emitter(context, builder, sig.args[0], REGISTER_BYTES)  # smaller squares: a large one would spill
        out, source = e.pointer(sig.args[0], out, out_at), e.pointer(sig.args[3], source, source_at)
        parts = range(VECTOR_BYTES // REGISTER_BYTES)
        for down, across in product(parts, parts):
            rows = [e.load(e.row(source, source_row, down * e.lanes + i), across) for i in range(e.lanes)]
            for i, row in enumerate(e.transpose(rows)):
                e.store(row, e.row(out, out_row, across * e.lanes + i), down)
        return context.get_dummy_value()

    return types.void(out, index, index, source, index, index), emit


@intrinsic
def dots(typing, out, out_at, a, a_at, a_row, rows, x, x_at, depth):  # type: ignore[no-untyped-def]
    """out[4 i + r] = sum_k A[i, k] x[k] over k = r, r + 4, ... < depth, for DOTS rows; depth is a multiple of 4.

    Only the first `rows` are there; what stands in out for others is not to be used. The four sums of a row lie in one
    register, so rows of A are read as they are stored, and each sum runs in order.
    """
    index = types.intp

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        out, out_at, a, a_at, a_row, rows, x, x_at, depth = args
        e = Emitter(context, builder, sig.args[0], 8 * SUMS)
        out, a, x = (
            e.pointer(sig.args[i], array, at) for i, array, at in ((0, out, out_at), (2, a, a_at), (6, x, x_at))
        )
        last, together = builder.sub(rows, e.number(1)), e.lanes // SUMS  # rows in a register
        starts = []
        for i in range(DOTS):
            row = builder.select(builder.icmp_signed("<", e.number(i), last), e.number(i), last)
            starts.append(builder.gep(a, [builder.mul(a_row, row)]))
        before = builder.block
        loop, after = builder.append_basic_block("depth"), builder.append_basic_block("after")
        builder.cbranch(builder.icmp_signed(">", depth, e.number(0)), loop, after)

        builder.position_at_end(loop)
        k = builder.phi(ir.IntType(64))
        sums = [builder.phi(e.vector) for _ in range(DOTS // together)]
        x_k = e.join([e.quarter(builder.gep(x, [k]))] * together)
        new = []
        for i, value in enumerate(sums):
            mine = starts[i * together : (i + 1) * together]
            new.append(e.fma(e.join([e.quarter(builder.gep(start, [k])) for start in mine]), x_k, value))
        following = builder.add(k, e.number(SUMS))
        k.add_incoming(e.number(0), before)
        k.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)

        builder.position_at_end(after)
        totals = [builder.phi(e.vector) for _ in sums]
        for phi, value in zip(sums + totals, new + new, strict=True):
            phi.add_incoming(e.zero, before)
            phi.add_incoming(value, loop)
        for i, total in enumerate(totals):
            e.store(total, out, i)
        return context.get_dummy_value()

    return types.void(out, index, a, index, index, index, x, index, index), emit


def patch(rows: int) -> Any:
    """The kernel of a correlation, for `rows` registers: a sum over two nested loops,

        C[i, :] = (C[i, :] if keep else start[i]) + sum_(o < outer) sum_(k < inner) A[o, k, i] * B[o, k, :]

    one vector wide; `start` lies in A, whose rows are neighbours. Both sums run in order for each element.
    """

    @intrinsic
    def multiply(
        typing, c, c_at, c_row, keep, a, start, a_at, a_outer, a_inner, b, b_at, b_outer, b_inner, outer, inner
    ):  # type: ignore[no-untyped-def] # fmt: skip
        index = types.intp
        signature = types.void(c, index, index, index, a, *[index] * 4, b, *[index] * 5)

        def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
            c, c_at, c_row, keep, a, start, a_at, a_outer, a_inner, b, b_at, b_outer, b_inner, outer, inner = args
            e = Emitter(context, builder, sig.args[0])
            places = ((0, c, c_at), (4, a, start), (4, a, a_at), (9, b, b_at))
            c, start, a, b = (e.pointer(sig.args[i], array, at) for i, array, at in places)
            names = ("kept", "fresh", "ready", "outside", "inside", "onwards", "after")
            kept, fresh, ready, outside, inside, onwards, after = map(builder.append_basic_block, names)

            def loop(block: Any, entry: Any, entries: list[Any]) -> list[Any]:
                """At the start of `block` a phi for each of its `entries`, values on the way in from `entry`."""
                builder.position_at_end(block)
                phis = [builder.phi(value.type) for value in entries]
                for phi, value in zip(phis, entries, strict=True):
                    phi.add_incoming(value, entry)
                return phis

            def again(phis: list[Any], values: list[Any]) -> None:
                for phi, value in zip(phis, values, strict=True):
                    phi.add_incoming(value, builder.block)

            zero, one = e.number(0), e.number(1)
            builder.cbranch(builder.icmp_signed("!=", keep, zero), kept, fresh)
            builder.position_at_end(fresh)
            news = [e.broadcast(builder.load(builder.gep(start, [e.number(i)]))) for i in range(rows)]
            builder.branch(ready)
            builder.position_at_end(kept)
            olds = [e.load(e.row(c, c_row, i)) for i in range(rows)]
            builder.branch(ready)
            first = loop(ready, fresh, news)
            for phi, value in zip(first, olds, strict=True):
                phi.add_incoming(value, kept)
            some = builder.and_(builder.icmp_signed(">", outer, zero), builder.icmp_signed(">", inner, zero))
            builder.cbranch(some, outside, after)

            o, a_o, b_o, *sums_o = at_o = loop(outside, ready, [zero, a, b, *first])
            builder.branch(inside)
            k, a_k, b_k, *sums = at_k = loop(inside, outside, [zero, a_o, b_o, *sums_o])
            vector = e.load(b_k)
            weights = [e.broadcast(builder.load(builder.gep(a_k, [e.number(i)]))) for i in range(rows)]
            sums = [e.fma(weight, vector, total) for weight, total in zip(weights, sums, strict=True)]
            k = builder.add(k, one)
            again(at_k, [k, builder.gep(a_k, [a_inner]), builder.gep(b_k, [b_inner]), *sums])
            builder.cbranch(builder.icmp_signed("<", k, inner), inside, onwards)
            builder.position_at_end(onwards)
            o = builder.add(o, one)
            again(at_o, [o, builder.gep(a_o, [a_outer]), builder.gep(b_o, [b_outer]), *sums])
            builder.cbranch(builder.icmp_signed("<", o, outer), outside, after)

            totals = loop(after, ready, first)
            for phi, value in zip(totals, sums, strict=True):
                phi.add_incoming(value, onwards)
            for i, total in enumerate(totals):
                e.store(total, e.row(c, c_row, i))
            return context.get_dummy_value()

        return signature, emit

    return multiply
