// CRC-32 as zip and gzip use it (ISO 3309, polynomial 0xEDB88320 reflected).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace trireme {

// Of `bytes` that follow those with the checksum `before`.
uint32_t crc32(std::span<const std::byte> bytes, uint32_t before = 0);

}  // namespace trireme
