#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

#include "common/error.h"
#include "common/file.h"
#include "fuzz/fuzz_targets.h"
#include "models/gguf/gguf_summary.h"
#include "models/gguf/gguf_tokenizer_json.h"
#include "models/gguf/imatrix.h"
#include "models/io/adapter.h"
#include "models/io/checkpoint.h"
#include "models/io/gguf.h"
#include "models/io/npz.h"
#include "models/io/safetensors.h"

namespace salient::fuzz {
namespace fs = std::filesystem;

void fuzz_safetensors(std::span<const std::byte> bytes) {
  const models::SafetensorsFile file(fuzz_file("model.safetensors", bytes));
  for (const auto& [name, info] : file.tensors()) {
    const at::Tensor tensor = file.view(name);
    // Reads both ends: what the header says must be there.
    if (tensor.nbytes() > 0) {
      const auto* data = static_cast<const volatile char*>(tensor.const_data_ptr());
      (void)data[0];
      (void)data[tensor.nbytes() - 1];
    }
    file.release(name);
  }
}

// An index beside one good shard.
void fuzz_index(std::span<const std::byte> bytes) {
  const fs::path file = fuzz_file("model.safetensors.index.json", bytes, [](const fs::path& folder) {
    write_file(folder / "config.json", R"({"model_type": "qwen3"})");
    models::write_safetensors(folder / "model-00001-of-00001.safetensors", {{"a.weight", at::zeros({2, 2})}});
  });
  const models::Checkpoint checkpoint(file.parent_path());
  for (const std::string& name : checkpoint.names()) {
    const fs::path holder = checkpoint.file_of(name);
    if (fs::weakly_canonical(holder).parent_path() != fs::weakly_canonical(file.parent_path()))
      fail(ErrorKind::kInternal, "{}: outside of the checkpoint's folder", holder.string());
  }
}

void fuzz_gguf(std::span<const std::byte> bytes) {
  const fs::path path = fuzz_file("model.gguf", bytes);
  try {
    const models::GgufFile file(path);
    for (const models::GgufTensor& tensor : file.header().tensors) {
      const at::Tensor view = file.view(tensor.name);
      if (view.nbytes() > 0) (void)static_cast<const volatile char*>(view.const_data_ptr())[view.nbytes() - 1];
      if (view.nbytes() < 4096) (void)file.read(tensor.name);
    }
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInternal) throw;
  }
  // A head alone is read, too.
  const models::GgufHeader header = models::parse_gguf_header(bytes, "model.gguf");
  (void)models::summarize_gguf(header, "model.gguf");
  (void)models::tokenizer_from_gguf(header, "model.gguf");
}

void fuzz_npz(std::span<const std::byte> bytes) {
  const models::NpzFile file(fuzz_file("arrays.npz", bytes));
  for (const std::string& name : file.names()) {
    try {
      (void)file.header(name);
      (void)file.read(name);
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kInternal) throw;
    }
  }
}

void fuzz_imatrix(std::span<const std::byte> bytes) {
  const models::Imatrix imatrix = models::read_imatrix(fuzz_file("model.imatrix", bytes));
  for (const auto& [name, entry] : imatrix.entries) (void)models::imatrix_importance(entry);
}

// The configuration beside tensors of one module.
void fuzz_adapter(std::span<const std::byte> bytes) {
  const fs::path config = fuzz_file("adapter_config.json", bytes, [](const fs::path& folder) {
    const std::string module = "base_model.model.model.layers.0.self_attn.q_proj.";
    models::write_safetensors(folder / "adapter_model.safetensors",
                              {{module + "lora_A.weight", at::zeros({2, 8})}, {module + "lora_B.weight", at::zeros({8, 2})}});
  });
  (void)models::read_adapter(config.parent_path());
}

}  // namespace salient::fuzz
