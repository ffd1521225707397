#include "eval/loglikelihood.h"

#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "common/error.h"
#include "eval/token_scores.h"
#include "eval/unicode_text.h"

namespace salient::eval {
namespace {

using models::TokenId;

// One forward pass: an input, and every continuation that ends it (equal but for the last token, which is not an input).
struct Pass {
  std::vector<TokenId> input;
  std::vector<size_t> requests;
};

struct Prepared {
  std::vector<TokenId> input;         // context + continuation without its last token, truncated on the left
  std::vector<TokenId> continuation;
};

std::vector<Prepared> prepare(const LanguageModel& model, std::vector<TokenRequest>& requests) {
  std::vector<Prepared> out;
  out.reserve(requests.size());
  for (TokenRequest& request : requests) {
    TokenPair pair = std::move(request.tokens);
    if (static_cast<int64_t>(pair.continuation.size()) > model.max_length) {
      fail(ErrorKind::kInvalidArgument, "{}: a continuation of {} tokens, but {} takes inputs of at most {}", request.document,
           pair.continuation.size(), model.name, model.max_length);
    }
    std::vector<TokenId> input = std::move(pair.context);
    input.insert(input.end(), pair.continuation.begin(), pair.continuation.end() - 1);
    if (const auto limit = static_cast<size_t>(model.max_length); input.size() > limit) {
      input.erase(input.begin(), input.end() - static_cast<std::ptrdiff_t>(limit));
    }
    out.push_back({std::move(input), std::move(pair.continuation)});
  }
  return out;
}

// Passes, longest first: a batch then pads little, and the largest batch comes first.
std::vector<Pass> plan_passes(std::vector<Prepared>& prepared) {
  std::map<std::vector<TokenId>, std::vector<size_t>> by_input;
  for (size_t i = 0; i < prepared.size(); ++i) by_input[std::move(prepared[i].input)].push_back(i);
  std::vector<Pass> passes;
  passes.reserve(by_input.size());
  while (!by_input.empty()) {
    auto node = by_input.extract(by_input.begin());
    passes.push_back({std::move(node.key()), std::move(node.mapped())});
  }
  std::stable_sort(passes.begin(), passes.end(), [](const Pass& a, const Pass& b) { return a.input.size() > b.input.size(); });
  return passes;
}

}  // namespace

TokenPair encode_pair(const LanguageModel& model, std::string_view context, std::string_view continuation) {
  TokenPair pair;
  if (context.empty()) {
    const auto prefix = prefix_token(model);
    if (!prefix) {
      fail(ErrorKind::kInvalidArgument, "{}: a text without context needs a first token, but the tokenizer has neither bos_token nor eos_token",
           model.name);
    }
    pair.continuation = model.tokenizer.encode(continuation, false);
    pair.context = {*prefix};
    if (!pair.continuation.empty() && pair.continuation.front() == *prefix) pair.continuation.erase(pair.continuation.begin());
  } else {
    const std::string whole = std::string(context) + std::string(continuation);
    pair.context = encode_text(model, trim_right(context));
    const auto ids = encode_text(model, whole);
    if (ids.size() > pair.context.size()) pair.continuation.assign(ids.begin() + static_cast<std::ptrdiff_t>(pair.context.size()), ids.end());
    if (pair.context.empty()) {  // nothing but white space
      if (const auto prefix = prefix_token(model)) pair.context = {*prefix};
    }
  }
  if (pair.continuation.empty() || pair.context.empty()) {
    fail(ErrorKind::kInvalidArgument, "{}: the continuation \"{}\" has no tokens of its own after the context, so it has no likelihood",
         model.name, continuation);
  }
  return pair;
}

std::vector<Likelihood> loglikelihood(const LanguageModel& model, const std::vector<LikelihoodRequest>& requests,
                                      const LikelihoodOptions& options) {
  std::vector<TokenRequest> tokens;
  tokens.reserve(requests.size());
  for (const LikelihoodRequest& request : requests) {
    tokens.push_back({with_context(request.document, [&] { return encode_pair(model, request.context, request.continuation); }), request.document});
  }
  return token_loglikelihood(model, std::move(tokens), options);
}

std::vector<Likelihood> token_loglikelihood(const LanguageModel& model, std::vector<TokenRequest> requests, const LikelihoodOptions& options) {
  const c10::InferenceMode inference;
  std::vector<Prepared> prepared = prepare(model, requests);
  const std::vector<Pass> passes = plan_passes(prepared);
  std::vector<Likelihood> out(requests.size());
  int64_t done = 0;
  for (size_t begin = 0; begin < passes.size();) {
    const auto length = static_cast<int64_t>(passes[begin].input.size());
    const auto rows = static_cast<size_t>(std::max<int64_t>(1, options.batch_tokens / length));
    size_t end = std::min(passes.size(), begin + rows);
    if (options.watch.wants_equal_lengths(model.decoder.config())) {
      while (static_cast<int64_t>(passes[end - 1].input.size()) != length) --end;
    }

    std::vector<std::vector<TokenId>> inputs;
    std::vector<int64_t> positions;  // in the flattened batch
    std::vector<int64_t> targets;
    for (size_t p = begin; p < end; ++p) {
      inputs.push_back(passes[p].input);
      const auto row_end = static_cast<int64_t>(p - begin) * length + static_cast<int64_t>(passes[p].input.size());
      for (const size_t r : passes[p].requests) {
        const auto count = static_cast<int64_t>(prepared[r].continuation.size());
        for (int64_t i = 0; i < count; ++i) {
          positions.push_back(row_end - count + i);
          targets.push_back(prepared[r].continuation[static_cast<size_t>(i)]);
        }
      }
    }
    const at::Device device = model.decoder.options().device;
    const at::Tensor hidden = model.decoder.hidden_states(pad_right(inputs, 0, device), {}, nullptr, options.watch.right_padded(inputs));
    for (const auto& input : inputs) options.watch.tell(input);
    const at::Tensor wanted = hidden.flatten(0, 1).index_select(0, at::tensor(positions, at::kLong).to(device));
    const TokenScores scores = score_tokens(model.decoder, wanted, at::tensor(targets, at::kLong).to(device), true);

    size_t at = 0;
    for (size_t p = begin; p < end; ++p) {
      for (const size_t r : passes[p].requests) {
        Likelihood& result = out[r];
        result.tokens = static_cast<int64_t>(prepared[r].continuation.size());
        result.is_greedy = true;
        for (int64_t i = 0; i < result.tokens; ++i, ++at) {
          result.log_prob += scores.log_probs[at];
          result.is_greedy = result.is_greedy && scores.is_top[at] != 0;
        }
        if (!std::isfinite(result.log_prob)) {
          fail(ErrorKind::kCheckFailed, "{}: NaN or infinite logits at document {}: the model is broken, its scores mean nothing", model.name,
               requests[r].document);
        }
        ++done;
      }
    }
    begin = end;
    if (options.progress) options.progress(done, static_cast<int64_t>(requests.size()));
  }
  return out;
}

}  // namespace salient::eval
