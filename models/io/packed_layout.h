// From the names and shapes of one linear layer's tensors to how its weights are packed, and from there to its codes. Recognizing
// needs headers only, never tensor data.
//
// With K input and N output channels, b bits, groups of G input channels, and ZW = m·ceil(K/1024), m = 1, 2, 4 for G = 128, 64, 32:
//   awq-gemm            qweight int32 [K, N·b/32]   qzeros int32 [K/G, N·b/32]   scales [K/G, N]
//   awq-gemv            qweight int32 [N, K/8]      qzeros int32 [N, ZW]         scales [N, 8·ZW]
//   awq-gemv-fast       qweight int16 [N/4, K]      qzeros or scaled_zeros       scales [8·ZW, N]
//   awq-marlin          qweight int32 [K/16, 2N]    none                         scales [K/G, N]
//   gptq                qweight int32 [K·b/32, N]   qzeros int32 [K/G, N·b/32]   scales [K/G, N]   (g_idx int32 [K])
//   compressed-tensors  weight_packed int32 [N, ceil(K·b/32)], weight_zero_point int32 [ceil(N·b/32), K/G] or none, weight_scale [N, K/G]; K is in the
//                       data of weight_shape only (quant/pack_quantized.h)
// Sources: the packing code of AutoAWQ and AutoGPTQ, and the "pack-quantized" compressor of compressed-tensors.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "models/io/safetensors.h"
#include "quant/affine.h"

namespace salient::models {

struct PackedLayout {
  std::string name;         // "model.layers.0.self_attn.q_proj"
  std::string format;       // as in the table above
  int bits = 0;             // 0: the shapes leave it open (compressed-tensors without zero points)
  int64_t in_features = 0;  // 0: open, as bits
  int64_t out_features = 0;
  int64_t groups = 0;      // along the input channels; 0: open
  int64_t group_size = 0;  // 0: open
  bool zero_point = false;
  std::string shapes;         // "qweight int32 [128, 16], ...", for texts
  int64_t words_per_row = 0;  // compressed-tensors: words of weight_packed in a row
  int64_t zero_words = 0;     // and of weight_zero_point in a column, 0 without
};

// The linear that `tensor_name` is the packed weight of ("...qweight", "...weight_packed"), or nothing when it is no such tensor.
// `tensors` are those of the whole checkpoint. Errors: unsupported (code SALIENT_DETECTION_FAILED) when a packed weight's
// companions are missing or their shapes fit none of the layouts.
std::optional<PackedLayout> read_packed_layout(const std::string& tensor_name, const std::map<std::string, TensorInfo>& tensors);

// The tensors of one linear in one of AutoAWQ's layouts.
struct PackedTensors {
  at::Tensor weight;
  at::Tensor zeros;  // undefined where the layout stores none
  at::Tensor scales;
};
// Their codes. Errors: unsupported, naming the linear, for layouts that are only recognized (GPTQ, 8 bits in GEMM), and for GEMV
// whose padding fits no group size; corruption when the tensors are not as `linear` was read from.
quant::QuantizedWeight unpack_codes(const PackedLayout& linear, const PackedTensors& tensors);

// Fills in what was open, given the bits; leaves the linear as it is when they do not fit.
void resolve_bits(PackedLayout& linear, int bits);

// compressed-tensors: the bits of a linear whose weight_packed has rows of `words`, and whose weight_zero_point columns of
// `zero_words` (0 = there is none). `claimed`, the bits that the configuration names, decides where the widths leave a choice.
// Nothing when no number of bits fits, or several do.
std::optional<int> choose_bits(int64_t words, int64_t in_features, int64_t zero_words, int64_t out_features,
                               const std::set<int>& claimed);
// Fills in what was open, given the input channels.
void resolve_shape(PackedLayout& linear, int64_t in_features, const std::set<int>& claimed);

}  // namespace salient::models
