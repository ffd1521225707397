// The tensors of one decoder block in memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <vector>

#include "models/decoder/block_layout.h"
#include "models/decoder/linear.h"
#include "models/decoder/norm.h"
#include "models/io/checkpoint.h"

namespace salient::models {

// xIELU's learned shape (Huang and Schlag, arXiv 2411.13010), float32 as stored; undefined where the activation is another.
struct Xielu {
  at::Tensor alpha_p;  // [1]
  at::Tensor alpha_n;  // [1]
  at::Tensor beta;     // []; undefined = 0.5
  at::Tensor eps;      // []; undefined = -1e-6
};

// Slots that the architecture does not have hold a FloatLinear without a weight.
struct MlpWeights {
  Linear gate;
  Linear up;
  Linear gate_up;
  Linear down;
  at::Tensor activation_scales;  // [intermediate], or undefined
  Xielu xielu;

  Linear& at(LinearSlot slot);
  const Linear& at(LinearSlot slot) const;
};

struct BlockWeights {
  std::array<Linear, kLinearSlots> linears;  // those outside of MLPs
  std::array<Norm, kNormSlots> norms;
  std::array<at::Tensor, kParameterSlots> parameters;
  MlpWeights mlp;
  MlpWeights shared_expert;
  std::vector<MlpWeights> experts;

  Linear& at(LinearId id);
  const Linear& at(LinearId id) const;
  const Linear& at(LinearSlot slot) const;  // outside of MLPs
  Norm& at(NormSlot slot) { return norms[static_cast<size_t>(slot)]; }
  const Norm& at(NormSlot slot) const { return norms[static_cast<size_t>(slot)]; }
  at::Tensor& at(ParameterSlot slot) { return parameters[static_cast<size_t>(slot)]; }
  const at::Tensor& at(ParameterSlot slot) const { return parameters[static_cast<size_t>(slot)]; }
};

bool has_weight(const Linear& linear);

enum class LoadExperts : uint8_t { kNo, kYes };

// One linear: in float, or quantized where the checkpoint has <module>.qweight (AutoAWQ's layouts, 4 bits) or
// <module>.weight_packed (compressed-tensors, 2 to 8 bits, its own for each linear): models/io/packed_codes.h. Weights of GPTQ's
// order of channels (weight_g_idx) become a float linear. `activation_bits`: 8 makes a quantized one as set_activation_bits does.
// Errors: those of Checkpoint::load and load_codes.
Linear load_linear(const Checkpoint& checkpoint, const LinearSpec& spec, at::ScalarType dtype, int activation_bits = 16);

// Loads one block, each linear as load_linear does.
BlockWeights load_block(const Checkpoint& checkpoint, const DecoderConfig& config, int64_t block, at::ScalarType dtype,
                        at::Device device, LoadExperts experts = LoadExperts::kYes, int activation_bits = 16);
MlpWeights load_expert(const Checkpoint& checkpoint, const DecoderConfig& config, int64_t block, int64_t expert,
                       at::ScalarType dtype, at::Device device, int activation_bits = 16);

// Module (norm, embedding) -> its weight and bias tensor names' values.
Norm load_norm(const Checkpoint& checkpoint, const NormSpec& spec, at::ScalarType dtype, at::Device device);

BlockWeights to_device(BlockWeights weights, at::Device device);
MlpWeights to_device(MlpWeights weights, at::Device device);
uint64_t memory_bytes(const BlockWeights& weights);

}  // namespace salient::models
