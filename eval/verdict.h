// What an evaluation says, in plain words.
#pragma once

#include <string>
#include <vector>

#include "eval/result.h"

namespace salient::eval {

// A loss or gain is measurable when its p value is below this after Holm's correction for the number of tasks.
inline constexpr double kVerdictRisk = 0.05;
// A task whose documents could not show a loss of this size has too few to tell: 5 points, or 5 % of a figure that is no share.
inline constexpr double kTellingLoss = 0.05;

// One sentence, the worst first. With a base: tasks without any figures; on how many tasks there is no measurable loss; losses and
// gains, each with the half width of its 95 % interval; tasks with too few documents to tell; perplexity and divergence; tasks with
// other flags (eval/run_health.h). A task is judged by its headline metric, one that has none and only figures that should be low
// (wikitext) by its first; tasks of a group by the group. Without a base: the headline scores.
std::string verdict(const Evaluation& evaluation);

// The same for each task of the model, one line each: "arc: acc 0.6475 -> 0.6425 ...".
std::vector<std::string> verdict_lines(const Evaluation& evaluation);

}  // namespace salient::eval
