// Grids and what lies beyond their edges; kernel/reference/diffusion.py has the equations.

// The cell of 0..n-1 whose value lies at i on the endless line: the other end, or with `mirror` the mirror image.
__device__ __forceinline__ int source(int i, int n, int mirror) {
    const int period = mirror ? 2 * n : n;
    i %= period;
    if (i < 0) i += period;
    return i < n ? i : 2 * n - 1 - i;
}
