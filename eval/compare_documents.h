// What a task's figures are beside those of a base, from the same documents run on both: the answer to "what did quantization
// break".
#pragma once

#include "eval/result.h"

namespace salient::eval {

// Puts the base's value beside every metric of `result`, and where the metric is a mean of documents' scores, or a function of one:
//   difference, retention      with standard errors of the pairs
//   difference_95, retention_95   paired bootstrap (eval/paired_bootstrap.h), by clusters where there are some
//   (eval/paired_units.h); where
//                              no document's score differs, as far as that many documents can tell (unseen_bound)
//   p_value                    McNemar's exact test of 0/1 scores of independent documents, else the sign-flip test of the pairs,
//   which
//                              is the same thing for other scores and for clusters
//   clustered_stderr, clusters    where documents share passages or subjects
//   detectable_difference      what a test at 5 % finds with 80 %; from the cautious error (difference_error) of scores in [0, 1]
//   flips                      of 0/1 scores
// Also result.calibration and result.generations. Both must hold the same documents; without documents only values stand side by
// side.
void compare_documents(TaskResult& result, const TaskResult& base);

}  // namespace salient::eval
