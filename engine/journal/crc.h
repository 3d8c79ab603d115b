/* crc.h -- the checksum of frames: CRC-32 as in zlib and ISO 3309 (polynomial 04C11DB7, reflected) */
#ifndef JOURNAL_CRC_H
#define JOURNAL_CRC_H

#include <stddef.h>
#include <stdint.h>

uint32_t journal_crc(const uint8_t *p, size_t n);

#endif
