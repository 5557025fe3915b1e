// The largest eigenvalue of a small symmetric tridiagonal matrix T, and its vector, in f64.
// Torch-free.
//
// T has `diagonal` [n] and, beside it, `beside` [n - 1]; neither is negative. With x above every
// eigenvalue, the pivots of T - x I are all negative and nothing can cancel or overflow.
#pragma once

#include <math.h>

#include "common/host_device.h"

namespace camfuse {

// How many eigenvalues lie above x (Sturm's sequence).
CAMFUSE_HD int count_above(const double* diagonal, const double* beside, int n, double x) {
  int count = 0;
  double pivot = 1;
  for (int i = 0; i < n; ++i) {
    const double square = i > 0 ? beside[i - 1] * beside[i - 1] : 0;
    pivot = diagonal[i] - x - square / pivot;
    if (pivot == 0) pivot = -1e-300;
    count += pivot > 0;
  }
  return count;
}

// Laguerre's method from above: every step approaches the largest root of a polynomial whose roots
// are all real, and never passes it. What it needs are the sums over all eigenvalues e of
// 1 / (x - e) and of its square, which the pivots' derivatives by x give.
CAMFUSE_HD double largest_eigenvalue(const double* diagonal, const double* beside, int n) {
  double x = 0;  // no eigenvalue lies above (Gershgorin)
  for (int i = 0; i < n; ++i) {
    const double edge = diagonal[i] + (i > 0 ? beside[i - 1] : 0) + (i + 1 < n ? beside[i] : 0);
    if (edge > x) x = edge;
  }
  if (n == 1) return diagonal[0];
  for (int round = 0; round < 60; ++round) {
    double first = 0, second = 0;  // the sums of 1 / (x - e) and 1 / (x - e)^2
    double pivot = 1, slope = 0, bend = 0;
    for (int i = 0; i < n; ++i) {
      const double square = i > 0 ? beside[i - 1] * beside[i - 1] : 0;
      const double inverse = 1 / pivot, steepness = slope * inverse;
      const double pull = square * inverse;
      bend = pull * (bend * inverse - 2 * steepness * steepness);
      slope = pull * steepness - 1;
      pivot = diagonal[i] - x - pull;
      if (!(pivot < 0)) return x;
      const double relative = slope / pivot;
      first += relative;
      second += relative * relative - bend / pivot;
    }
    const double spread = (n - 1) * (n * second - first * first);
    const double step = n / (first + (spread > 0 ? sqrt(spread) : 0));
    x -= step;
    if (!(step > 4e-16 * x)) return x;
  }
  return x;
}

// The eigenvector of the largest eigenvalue `value`, of length 1, by inverse iteration. Like the
// elements of T, those of the vector are not negative, so a start of ones is never orthogonal to
// it. `pivots` is scratch [n].
CAMFUSE_HD void top_eigenvector(const double* diagonal, const double* beside, int n, double value,
                                double* vector, double* pivots) {
  const double least = 1e-15 * value + 1e-300;
  const double shift = value + 4 * least;
  for (int i = 0; i < n; ++i) {
    double pivot = shift - diagonal[i];
    if (i > 0) pivot -= beside[i - 1] * beside[i - 1] / pivots[i - 1];
    pivots[i] = pivot > least ? pivot : least;
    vector[i] = 1;
  }
  for (int round = 0; round < 3; ++round) {
    for (int i = 1; i < n; ++i) vector[i] += beside[i - 1] / pivots[i - 1] * vector[i - 1];
    double largest = 0;
    for (int i = n - 1; i >= 0; --i) {
      vector[i] = (vector[i] + (i + 1 < n ? beside[i] * vector[i + 1] : 0)) / pivots[i];
      if (vector[i] > largest) largest = vector[i];
    }
    double square = 0;
    for (int i = 0; i < n; ++i) {
      vector[i] /= largest;
      square += vector[i] * vector[i];
    }
    const double scale = 1 / sqrt(square);
    for (int i = 0; i < n; ++i) vector[i] *= scale;
  }
}

// Whether the angle between `vector` and what it approaches as T grows is below `tolerance`;
// `next` is what the next row of T would have beside its diagonal. The residual, divided by the
// distance to the next eigenvalue, bounds the angle. Between neighbours that nearly coincide,
// within 1%, it is free.
CAMFUSE_HD bool is_close(const double* diagonal, const double* beside, int n, double next,
                         double value, const double* vector, double tolerance) {
  const double residual = next * vector[n - 1];
  if (residual <= 0.01 * tolerance * value) return true;
  const double neighbour = value - residual / tolerance;
  return neighbour >= 0 && count_above(diagonal, beside, n, neighbour) == 1;
}

}  // namespace camfuse
