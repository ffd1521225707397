// Which input channels matter: their activation magnitude (what AWQ calls salience), the error that rounding really causes in them,
// and how well the one predicts the other.
//
// Channels here are input channels (columns) of a linear. Vectors: float32 or float64 [in], on the CPU. A channel whose value is
// NaN counts as 0.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace salient::quant {

// The `count` channels of the largest values, largest first, of equal ones the first: int64 [count]. count is clamped to 0 .. in.
at::Tensor largest_channels(const at::Tensor& values, int64_t count);

// The share `ratio` of all channels with the largest mean|x|, or with the largest mean|x| * mean|w| when `weight` (float32 [out,
// in]) is defined: int64 [count], largest first, with count = ratio * in rounded to nearest, at least 1 when ratio > 0. Errors:
// invalid argument when ratio lies outside of 0 .. 1.
at::Tensor find_salient_channels(const at::Tensor& mean_abs, const at::Tensor& weight, double ratio);

// What each channel's own rounding error contributes to the output error, G_jj * sum over rows n of D_nj^2: float64 [in]. Their sum
// is the output error without the terms between channels. weight_error: float32 [out, in]; gram: float32 [in, in].
at::Tensor channel_error_share(const at::Tensor& weight_error, const at::Tensor& gram);

// The channels worth keeping in float, by what it costs: int64 [count], most error first, count <= max_ratio * in.
//
// A channel that stays in 16 bits costs 16 - bits more per weight of that channel. The same bits spread over all channels would
// lower the error, too: one bit more quarters it, so that each bit per weight of one channel buys 3/4 of the mean error of a
// channel. Channels are taken in the order of their error for as long as a channel's error is more than (16 - bits) * 3/4 times
// that of the mean channel of those left (9 times at 4 bits). Evenly spread error: none. channel_error: from channel_error_share.
// Errors: invalid argument when max_ratio lies outside of 0 .. 1.
at::Tensor choose_salient_channels(const at::Tensor& channel_error, int bits, double max_ratio);

// The 0, 25, 50, 75, 90, 99 and 100 % quantiles, interpolated linearly. Seven zeros for an empty vector.
std::vector<double> salience_quantiles(const at::Tensor& values);

// The share of the sum of `values` (none negative) that the largest `share` of the channels has, at least one channel. 0 when all
// are 0.
double salience_top_share(const at::Tensor& values, double share = 0.01);

// Spearman's rank correlation, -1 .. 1, equal values sharing the mean of their ranks. Nothing when either vector is constant or
// shorter than 2. Errors: internal when the lengths differ.
std::optional<double> rank_correlation(const at::Tensor& a, const at::Tensor& b);
// The same for numbers, none of them NaN.
std::optional<double> rank_correlation(std::span<const double> a, std::span<const double> b);

}  // namespace salient::quant
