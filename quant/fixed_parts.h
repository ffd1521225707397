// Work that is cut by its sizes alone, so that the number of threads decides when a part is done and never what comes out: sums and
// products keep their order, and with it every bit. libtorch itself cuts by the number of threads, and where a part ends matters:
// MKL's products take another kernel for the last rows and columns, LAPACK's factorisations add in another order, full sums are
// added thread by thread, and the vectors of exp, sigmoid or pow end in scalar code that rounds differently. Of at::sum over one
// dimension, softmax and oneDNN's products the parts are whole rows, and at::bmm gives each matrix to one thread: those are the
// same bits without this file (tests/quant/fixed_parts_test.cpp compares them).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace salient::quant {

// work(begin, end) for each part of `part` numbers of [0, count), the last one shorter. Parts run side by side, each in one thread,
// also what libtorch does in it. Errors are thrown here.
void in_fixed_parts(int64_t count, int64_t part, const std::function<void(int64_t begin, int64_t end)>& work);

// `work` and what libtorch does in it in one thread.
void in_one_thread(const std::function<void()>& work);

// A function that libtorch has no other order for than its threads': of each element for itself.
using ElementFunction = std::function<at::Tensor(const at::Tensor& x)>;
// function(x), of x's shape and of the dtype that the function gives. What comes out for an element does not depend on where it
// stands: what is left over behind the last vector is filled up to one.
at::Tensor elementwise(const at::Tensor& x, const ElementFunction& function);

// The sum of all elements, added up in float64.
double total(const at::Tensor& x);

// The sum over the rows: float64 [columns]. x: [rows, columns]
at::Tensor sum_of_rows(const at::Tensor& x);

}  // namespace salient::quant
