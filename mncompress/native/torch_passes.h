// Passes over (rows, neurons) for torch, in plain loops over a block of neurons that the compiler turns into vectors.
// torch_api.cpp includes this once for each instruction set, in a namespace of its own, so there is no `#pragma once`.
//
// Gradients are those of torch's autograd: of the cubic spline with the interval taken as constant, of max(x - knot, 0) with
// derivative 0 at the knot.

// Where a block of neurons is at one row: the table's row, t in it, and t clipped to [0, 1], NaN staying NaN.
struct Located {
  int piece[kBlock];
  float t[kBlock], inside[kBlock];
};

inline void locate(const CubicArguments& a, const Shift& shift, const float* x, size_t count, Located& at) {
  const float intervals = static_cast<float>(a.intervals);
  float s[kBlock] = {};
  for (size_t j = 0; j < count; ++j) s[j] = x[j];
  for (size_t j = 0; j < kBlock; ++j) {
    const float value = (s[j] - shift.start[j]) * shift.inverse_step[j];
    const float low = value > 0 ? value : 0, clipped = low < intervals ? low : intervals;  // NaN: 0
    at.piece[j] = static_cast<int>(clipped);
    const float t = value - static_cast<float>(at.piece[j]);
    const float above = t < 0 ? 0 : t;
    at.t[j] = t;
    at.inside[j] = above > 1 ? 1 : above;
  }
}

inline void cubic_forward(const CubicArguments& a, size_t from, size_t to, float* y) {
  const size_t count = to - from;
  const Shift shift(a, from, count);
  const Ends ends(a, from, count);
  const float* table = a.coefficients + from * a.intervals * 4;
  Located at;
  for (size_t i = 0; i < a.rows; ++i) {
    const float* x = a.x + i * a.neurons + from;
    float out[kBlock];
    locate(a, shift, x, count, at);
    for (size_t j = 0; j < count; ++j) {
      const size_t piece = static_cast<size_t>(at.piece[j]);
      const float* c = piece < a.intervals ? table + (j * a.intervals + piece) * 4 : ends.above[j];
      out[j] = c[0] + at.t[j] * (c[1] + at.inside[j] * (c[2] + at.inside[j] * c[3]));
    }
    for (size_t j = 0; j < count; ++j) y[i * a.neurons + from + j] = out[j];
  }
}

inline void cubic_backward(const CubicArguments& a, const CubicGradients& to_give, size_t from, size_t to) {
  const size_t count = to - from;
  const Shift shift(a, from, count);
  const Ends ends(a, from, count);
  const float* table = a.coefficients + from * a.intervals * 4;
  float* sums = to_give.coefficients + from * a.intervals * 4;
  for (size_t k = 0; k < count * a.intervals * 4; ++k) sums[k] = 0;
  float above[kBlock][4] = {};
  double start_sum[kBlock] = {}, step_sum[kBlock] = {};
  Located at;
  for (size_t i = 0; i < a.rows; ++i) {
    const float *x = a.x + i * a.neurons + from, *dy = to_give.y + i * a.neurons + from;
    float* dx = to_give.x + i * a.neurons + from;
    float ds[kBlock];
    locate(a, shift, x, count, at);
    for (size_t j = 0; j < count; ++j) {
      const size_t piece = static_cast<size_t>(at.piece[j]);
      const bool inner = piece < a.intervals;
      const size_t row = (j * a.intervals + piece) * 4;
      const float* c = inner ? table + row : ends.above[j];
      float* sum = inner ? sums + row : above[j];
      const float g = dy[j], t = at.inside[j], square = t * t;
      ds[j] = g * (c[1] + t * (2 * c[2] + 3 * t * c[3]));
      const float powers[4] = {1, at.t[j], square, square * t};
      for (size_t p = 0; p < 4; ++p) sum[p] += g * powers[p];
    }
    for (size_t j = 0; j < count; ++j) {
      dx[j] = ds[j] * shift.inverse_step[j];
      start_sum[j] -= dx[j];
      step_sum[j] += ds[j] * (x[j] - shift.start[j]);
    }
  }
  for (size_t j = 0; j < count; ++j) {
    to_give.start[from + j] = static_cast<float>(start_sum[j]);
    to_give.inverse_step[from + j] = static_cast<float>(step_sum[j]);
    float* last = sums + ((j + 1) * a.intervals - 1) * 4;  // above: sum(c) + t * (c1 + 2 * c2 + 3 * c3)
    for (size_t p = 0; p < 4; ++p) last[p] += above[j][0] + (p ? static_cast<float>(p) * above[j][1] : 0);
  }
}

inline void piecewise_backward(const PiecewiseArguments& a, const PiecewiseGradients& to_give, size_t from, size_t to) {
  constexpr size_t kRows = 4;
  const size_t count = to - from;
  struct Knot {
    float at[kBlock], change[kBlock], passed[kBlock], excess[kBlock];  // passed: sum of dy; excess: sum of dy * (x - knot)
  };
  std::vector<Knot> knots(a.knots);  // zeros
  for (size_t j = 0; j < count; ++j)
    for (size_t k = 0; k < a.knots; ++k) {
      knots[k].at[j] = a.positions[(from + j) * a.knots + k];
      knots[k].change[j] = a.changes[(from + j) * a.knots + k];
    }
  float slope[kBlock] = {}, slope_sum[kBlock] = {}, intercept_sum[kBlock] = {};
  for (size_t j = 0; j < count; ++j) slope[j] = a.slope[from + j];
  for (size_t first = 0; first < a.rows; first += kRows) {
    const size_t rows = a.rows - first < kRows ? a.rows - first : kRows;
    float x[kRows][kBlock] = {}, g[kRows][kBlock] = {}, total[kRows][kBlock];
    for (size_t i = 0; i < rows; ++i)
      for (size_t j = 0; j < count; ++j) {
        x[i][j] = a.x[(first + i) * a.neurons + from + j];
        g[i][j] = to_give.y[(first + i) * a.neurons + from + j];
      }
    for (size_t i = 0; i < kRows; ++i)
      for (size_t j = 0; j < kBlock; ++j) {
        total[i][j] = slope[j];
        slope_sum[j] += g[i][j] * x[i][j];
        intercept_sum[j] += g[i][j];
      }
    for (Knot& knot : knots)
      for (size_t i = 0; i < kRows; ++i)
        for (size_t j = 0; j < kBlock; ++j) {
          const float distance = x[i][j] - knot.at[j];
          total[i][j] += distance <= 0 ? 0 : knot.change[j];
          knot.passed[j] += distance <= 0 ? 0 : g[i][j];
          knot.excess[j] += g[i][j] * (distance < 0 ? 0 : distance);
        }
    for (size_t i = 0; i < rows; ++i)
      for (size_t j = 0; j < count; ++j) to_give.x[(first + i) * a.neurons + from + j] = g[i][j] * total[i][j];
  }
  for (size_t j = 0; j < count; ++j) {
    to_give.slope[from + j] = slope_sum[j];
    to_give.intercept[from + j] = intercept_sum[j];
    for (size_t k = 0; k < a.knots; ++k) {
      to_give.positions[(from + j) * a.knots + k] = -knots[k].change[j] * knots[k].passed[j];
      to_give.changes[(from + j) * a.knots + k] = knots[k].excess[j];
    }
  }
}
