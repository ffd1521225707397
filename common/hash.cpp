#include "common/hash.h"

#include <openssl/evp.h>

#include <algorithm>

#include "common/cancellation.h"
#include "common/error.h"
#include "common/file.h"

namespace salient {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  if (EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) != 1) fail(ErrorKind::kInternal, "libcrypto has no SHA-256");
}

Sha256::~Sha256() = default;

void Sha256::update(std::span<const std::byte> bytes) { EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()); }

void Sha256::update(std::string_view text) { update(std::as_bytes(std::span(text.data(), text.size()))); }

std::string Sha256::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(state_->context, digest, &size);
  std::string text;
  for (unsigned int i = 0; i < size; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

std::string sha256_hex(std::string_view text) {
  Sha256 hash;
  hash.update(text);
  return hash.hex();
}

std::string sha256_file(const std::filesystem::path& path) {
  constexpr size_t kChunk = size_t{4} << 20;  // let go of after use: a checkpoint's shards are larger than the memory may be
  const MappedFile file(path);
  Sha256 hash;
  for (size_t begin = 0; begin < file.bytes().size(); begin += kChunk) {
    check_cancelled();
    const size_t count = std::min(kChunk, file.bytes().size() - begin);
    hash.update(file.bytes().subspan(begin, count));
    file.release(begin, count);
  }
  return hash.hex();
}

uint64_t derive_seed(uint64_t seed, std::string_view name) {
  return std::stoull(sha256_hex(fmt::format("{}/{}", seed, name)).substr(0, 16), nullptr, 16);
}

}  // namespace salient
