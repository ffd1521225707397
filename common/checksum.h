// Sums that tell whether bytes changed by accident: on a disk, by a loss of power, by somebody who tidied up. Several gigabytes a
// second; nobody who wants to is kept from making other bytes with the same sum, which is what Sha256 is for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace salient {

// Any change of a single byte changes it. `seed`: another one for other bytes, so that parts can be chained.
uint64_t checksum64(std::span<const std::byte> bytes, uint64_t seed = 0);

// Of any number of bytes in memory, the same as checksum_of_part gives of them in a file.
uint64_t checksum_of_bytes(std::span<const std::byte> bytes);

// 16 hexadecimal digits.
std::string checksum_text(uint64_t checksum);

// Of the bytes [begin, begin + size) that `descriptor` refers to. `path` is for messages. Errors: io; corruption when it ends
// before.
uint64_t checksum_of_part(int descriptor, const std::filesystem::path& path, uint64_t begin, uint64_t size);
// Of a whole file, which is read and not mapped. Errors: not found, io.
uint64_t checksum_of_file(const std::filesystem::path& path);

}  // namespace salient
