// The attention of a block as TorchScript text, from its normalized input to o_proj's output: what models/decoder/attention.cpp and
// latent_attention.cpp compute, without padding.
//
//   attention(self, x, <context>) -> Tensor   x: [batch, tokens, hidden]
//
// The context is what all blocks are given, see kContextParameters. `cache` is empty, or holds keys and values of all blocks,
// [batch, key heads, capacity, head_dim] at 2 * index and 2 * index + 1, of which `position` tokens are filled; this call's are
// written there.
#pragma once

#include <string>
#include <string_view>

#include "models/torchscript/block_parts.h"

namespace salient::models {

// mask: additive, or None for attention that is causal where there is more than one token.
inline constexpr std::string_view kContextParameters =
    "cos: Tensor, sin: Tensor, growth: Tensor, mask: Optional[Tensor], cache: List[Tensor], index: int, position: int";
inline constexpr std::string_view kContextArguments = "cos, sin, growth, mask, cache, index, position";

// The methods attention, attend, with_cache and, where there is one, rotate. Not for linear attention.
std::string attention_source(const BlockParts& parts);

}  // namespace salient::models
