// Logits of a TorchScript file that `salient export --format torchscript` wrote, with libtorch and nothing else.
//
//   run_torchscript MODEL.pt OUT PROMPT ID...
//
// OUT gets float32 numbers in the machine's byte order, [ids, vocabulary] twice over: what forward() gives for all ids; then,
// through the cache, PROMPT ids in one step and the others one by one: the rows from PROMPT - 1 on, those before it zero.
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/jit/serialization/import.h>

#include <cstdint>
#include <exception>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

void run(const std::string& model, const std::string& out, int64_t prompt, const std::vector<int64_t>& numbers) {
  const c10::InferenceMode no_gradients;
  torch::jit::Module module = torch::jit::load(model);
  module.eval();
  const at::Tensor ids = at::tensor(numbers).unsqueeze(0);
  const int64_t count = ids.size(1);
  const at::Tensor forward = module.forward({ids}).toTensor()[0].contiguous();

  at::Tensor steps = at::zeros_like(forward);
  const c10::IValue cache = module.get_method("make_cache")({int64_t{1}, count});
  const auto step = module.get_method("step");
  for (int64_t position = 0; position < count;) {
    const int64_t length = position == 0 ? prompt : 1;
    steps[position + length - 1] = step({ids.slice(1, position, position + length), cache, position}).toTensor()[0];
    position += length;
  }
  std::ofstream file(out, std::ios::binary);
  for (const at::Tensor& logits : {forward, steps}) {
    file.write(static_cast<const char*>(logits.const_data_ptr()), static_cast<std::streamsize>(logits.nbytes()));
  }
  if (!file.flush()) throw std::runtime_error(out + " could not be written");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::cerr << "usage: run_torchscript MODEL.pt OUT PROMPT ID...\n";
    return 2;
  }
  try {
    std::vector<int64_t> ids;
    for (int i = 4; i < argc; ++i) ids.push_back(std::stoll(argv[i]));
    run(argv[1], argv[2], std::stoll(argv[3]), ids);
  } catch (const std::exception& error) {
    std::cerr << "run_torchscript: " << error.what() << '\n';
    return 1;
  }
}
