// One quantization by several ranks (common/ranks.h).
//
// Rank 0 has the session: the lock on the work folder, what is written there, progress, messages. The others follow its orders. In
// a block (pipeline/block_step.h) all do the same kind of work on parts of it:
//
//   calibration rows    each rank runs its own, and keeps the hidden states of these in a file of its own in the work folder
//   statistics          summed: the same bits on every rank
//   scale searches      a group is searched by one rank, the dearest first; what is found goes to all
//   clipping, rounding  the linears of one input, or an expert, by one rank; what is stored goes to rank 0, which writes it, and as
//                       floats to all, which run their rows through it
//
// The artifact is that of one rank up to the order of sums. The number of ranks is part of what a job is known by: a stopped one
// goes on with the same number, with another it begins anew.
#pragma once

#include <map>
#include <string>

#include "common/json.h"
#include "pipeline/quantize_model.h"
#include "pipeline/quantize_progress.h"
#include "pipeline/quantize_work.h"

namespace salient::pipeline {

// What cannot be shared, and what no rank may do alone. Errors: unsupported: objective block, the rows curve. Nothing is checked
// where options.ranks is null.
void check_shared(const QuantizeModelOptions& options);

// quantize_model where options.ranks has several: every rank calls it.
QuantizeModelResult quantize_over_ranks(const QuantizeModelOptions& given, const calibration::TokenBlocks& tokens);

// What follows does nothing where no ranks share the work.

// Every rank must have made the same of its options, files and calibration rows. Errors: invalid argument.
void check_same_work(const QuantizeWork& job);

// Rank 0's orders.
Json plan_order(const std::map<std::string, int>& planned_bits);  // the bits of each module
Json begin_order();                                               // write the first block's input, meet
Json block_order(int64_t block, bool needs_output);               // run the block, meet
Json head_order();                                                // measure what the head reads
Json end_order();
void tell_ranks(const QuantizeWork& job, const Json& order);

// Whether every rank has its part of the input of `block`; asked by rank 0.
bool ranks_can_go_on(const QuantizeWork& job, int64_t block);
// Every rank has made its part of the input of `block` durable when this returns to rank 0, which notes the others' files in
// `progress`; null elsewhere.
void meet_ranks(const QuantizeWork& job, int64_t block, QuantizeProgress* progress = nullptr);

}  // namespace salient::pipeline
