#include "quant/ggml_codes.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <array>
#include <cstring>
#include <vector>

#include "common/error.h"
#include "quant/ggml_half.h"

namespace salient::quant {
namespace {

constexpr int64_t kLargestBlock = 256;
constexpr int64_t kGrainBytes = 1 << 16;
// In place of a scale of 0: rounding divides by it.
constexpr float kNoScale = 1e-30f;

// Where a code lies in its block: its low bits, and those above them.
struct Place {
  int low_byte = 0;
  int low_shift = 0;
  int high_byte = 0;
  int high_shift = 0;
};

struct Affine {
  float scale;
  float offset;  // w = scale * code + offset
};

struct Layout {
  GgmlType type;
  GgmlCodes codes;
  int low_bits;
  int high_bits;
  uint8_t flipped;  // bits of a code that are stored inverted: the sign of a signed byte
  Place (*place)(int element);
  Affine (*affine)(const uint8_t* block, int group);
};

Place half_block_nibble(int first_byte, int element) { return {first_byte + element % 16, element / 16 * 4}; }

Place with_fifth_bit(int high, Place place, int element) {
  place.high_byte = high + element / 8;
  place.high_shift = element % 8;
  return place;
}

Place k_nibble(int first_byte, int element) { return {first_byte + element / 64 * 32 + element % 32, element / 32 % 2 * 4}; }

Place q6_k_place(int element) {
  const int half = element / 128;
  const int quarter = element % 128 / 32;
  const int l = element % 32;
  return {64 * half + quarter % 2 * 32 + l, quarter / 2 * 4, 128 + 32 * half + l, 2 * quarter};
}

template <int kZero>
Affine symmetric(const uint8_t* block, int) {
  const float d = load_half(block);
  return {d, -static_cast<float>(kZero) * d};
}

Affine with_minimum(const uint8_t* block, int) { return {load_half(block), load_half(block + 2)}; }

Affine k_affine(const uint8_t* block, int group) {
  const uint8_t* bytes = block + 4;
  const int scale = group < 4 ? bytes[group] & 63 : (bytes[group + 4] & 15) | bytes[group - 4] >> 6 << 4;
  const int min = group < 4 ? bytes[group + 4] & 63 : bytes[group + 4] >> 4 | bytes[group] >> 6 << 4;
  return {load_half(block) * static_cast<float>(scale), -load_half(block + 2) * static_cast<float>(min)};
}

Affine q6_k_affine(const uint8_t* block, int group) {
  const float scale = load_half(block + 208) * static_cast<float>(static_cast<int8_t>(block[192 + group]));
  return {scale, -32.0f * scale};
}

constexpr std::array kLayouts = {
    Layout{GgmlType::kQ4_0, {4, 32}, 4, 0, 0, [](int e) { return half_block_nibble(2, e); }, symmetric<8>},
    Layout{GgmlType::kQ4_1, {4, 32}, 4, 0, 0, [](int e) { return half_block_nibble(4, e); }, with_minimum},
    Layout{GgmlType::kQ5_0, {5, 32}, 4, 1, 0, [](int e) { return with_fifth_bit(2, half_block_nibble(6, e), e); }, symmetric<16>},
    Layout{GgmlType::kQ5_1, {5, 32}, 4, 1, 0, [](int e) { return with_fifth_bit(4, half_block_nibble(8, e), e); }, with_minimum},
    Layout{GgmlType::kQ8_0, {8, 32}, 8, 0, 0x80, [](int e) { return Place{2 + e}; }, symmetric<128>},
    Layout{GgmlType::kQ4_K, {4, 32}, 4, 0, 0, [](int e) { return k_nibble(16, e); }, k_affine},
    Layout{GgmlType::kQ5_K,
           {5, 32},
           4,
           1,
           0,
           [](int e) {
             const Place low = k_nibble(48, e);
             return Place{low.low_byte, low.low_shift, 16 + e % 32, e / 32};
           },
           k_affine},
    Layout{GgmlType::kQ6_K, {6, 16}, 4, 2, 0, q6_k_place, q6_k_affine},
};

const Layout* find_layout(GgmlType type) {
  for (const Layout& layout : kLayouts) {
    if (layout.type == type) return &layout;
  }
  return nullptr;
}

const Layout& layout_of(GgmlType type) {
  const Layout* layout = find_layout(type);
  if (layout == nullptr) fail(ErrorKind::kInternal, "ggml type {} has no codes", static_cast<uint32_t>(type));
  return *layout;
}

std::array<Place, kLargestBlock> places_of(const Layout& layout, int64_t elements) {
  std::array<Place, kLargestBlock> places{};
  for (int e = 0; e < elements; ++e) places[static_cast<size_t>(e)] = layout.place(e);
  return places;
}

int mask(int bits) { return (1 << bits) - 1; }

// Calls visit with the number of every block of every row.
template <typename Visit>
void for_each_block(const at::Tensor& blocks, int64_t block_bytes, Visit visit) {
  const int64_t row_bytes = blocks.size(1);
  const int64_t row_blocks = row_bytes / block_bytes;
  at::parallel_for(0, blocks.size(0), std::max<int64_t>(1, kGrainBytes / std::max<int64_t>(1, row_bytes)),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t block = begin * row_blocks; block < end * row_blocks; ++block) visit(block);
                   });
}

}  // namespace

GgmlCodes ggml_codes(GgmlType type) {
  const Layout* layout = find_layout(type);
  return layout != nullptr ? layout->codes : GgmlCodes{};
}

QuantizedWeight read_ggml_codes(const at::Tensor& blocks, GgmlType type) {
  const Layout& layout = layout_of(type);
  const GgmlTypeInfo& info = ggml_type_info(type);
  const int64_t elements = info.block_elements;
  const int64_t columns = blocks.size(1) / info.block_bytes * elements;
  const int64_t groups = elements / layout.codes.group_size;
  const auto places = places_of(layout, elements);
  const at::Tensor bytes = blocks.contiguous();
  const std::vector<int64_t> scale_shape{blocks.size(0), columns / layout.codes.group_size};
  QuantizedWeight result{at::empty({blocks.size(0), columns}, at::kByte), at::empty(scale_shape, at::kFloat),
                         at::empty(scale_shape, at::kFloat)};
  const auto* source = bytes.const_data_ptr<uint8_t>();
  auto* codes = result.codes.data_ptr<uint8_t>();
  auto* zeros = result.zeros.data_ptr<float>();
  auto* scales = result.scales.data_ptr<float>();
  for_each_block(bytes, info.block_bytes, [&](int64_t number) {
    const uint8_t* block = source + number * info.block_bytes;
    for (int64_t e = 0; e < elements; ++e) {
      const Place& place = places[static_cast<size_t>(e)];
      int code = block[place.low_byte] >> place.low_shift & mask(layout.low_bits);
      if (layout.high_bits > 0) code |= (block[place.high_byte] >> place.high_shift & mask(layout.high_bits)) << layout.low_bits;
      codes[number * elements + e] = static_cast<uint8_t>(code ^ layout.flipped);
    }
    for (int64_t g = 0; g < groups; ++g) {
      Affine affine = layout.affine(block, static_cast<int>(g));
      if (affine.scale == 0.0f) affine.scale = kNoScale;
      scales[number * groups + g] = affine.scale;
      zeros[number * groups + g] = -affine.offset / affine.scale;
    }
  });
  return result;
}

at::Tensor with_ggml_codes(const at::Tensor& blocks, GgmlType type, const at::Tensor& codes) {
  const Layout& layout = layout_of(type);
  const GgmlTypeInfo& info = ggml_type_info(type);
  const int64_t elements = info.block_elements;
  const auto places = places_of(layout, elements);
  if (codes.size(0) != blocks.size(0) || codes.size(1) != blocks.size(1) / info.block_bytes * elements ||
      codes.scalar_type() != at::kByte)
    fail(ErrorKind::kInternal, "codes do not fit the blocks of type {}", info.name);
  at::Tensor result = blocks.clone(at::MemoryFormat::Contiguous);
  const at::Tensor source = codes.contiguous();
  const auto* code_data = source.const_data_ptr<uint8_t>();
  auto* bytes = result.data_ptr<uint8_t>();
  const auto put = [](uint8_t& byte, int shift, int bits, int value) {
    byte = static_cast<uint8_t>((byte & ~(mask(bits) << shift)) | (value & mask(bits)) << shift);
  };
  for_each_block(result, info.block_bytes, [&](int64_t number) {
    uint8_t* block = bytes + number * info.block_bytes;
    for (int64_t e = 0; e < elements; ++e) {
      const Place& place = places[static_cast<size_t>(e)];
      const int code = code_data[number * elements + e] ^ layout.flipped;
      put(block[place.low_byte], place.low_shift, layout.low_bits, code);
      if (layout.high_bits > 0) put(block[place.high_byte], place.high_shift, layout.high_bits, code >> layout.low_bits);
    }
  });
  return result;
}

}  // namespace salient::quant
