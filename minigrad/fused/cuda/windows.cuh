// Windows that slide over images (planes, H, W); see minigrad/ops/window.py for the words.

struct Window {
    int h, w;    // the image
    int oh, ow;  // how many windows there are, down and across
    int kh, kw;  // places in a window
    int sh, sw, ph, pw, dh, dw;  // stride, padding, dilation
};

// Which output reads input `i` at place `k` of its window, along one axis; -1 where none does.
__device__ inline int output_at(int i, int k, int outputs, int stride, int padding, int dilation) {
    const int t = i + padding - k * dilation;
    if (t < 0) return -1;
    const int o = stride == 1 ? t : t / stride;
    return o * stride == t && o < outputs ? o : -1;
}

__device__ inline int row_of(const Window& g, int iy, int ky) {
    return output_at(iy, ky, g.oh, g.sh, g.ph, g.dh);
}

__device__ inline int column_of(const Window& g, int ix, int kx) {
    return output_at(ix, kx, g.ow, g.sw, g.pw, g.dw);
}
