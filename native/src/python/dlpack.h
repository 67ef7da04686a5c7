// The parts of DLPack 1.x used here (github.com/dmlc/dlpack, Apache-2.0): the tensor and the C exchange table that
// array libraries hang on their tensor type as `__dlpack_c_exchange_api__`.
#pragma once

#include <cstdint>

namespace bptt::dlpack {

struct Device {
    int32_t type, id;
};
struct DataType {
    uint8_t code, bits;
    uint16_t lanes;
};
struct Tensor {
    void* data;
    Device device;
    int32_t ndim;
    DataType dtype;
    int64_t* shape;
    int64_t* strides;  // null: row-major
    uint64_t byte_offset;
};
struct Version {
    uint32_t major, minor;
};

constexpr int32_t device_cpu = 1;
constexpr uint8_t code_int = 0, code_float = 2, code_bool = 6;

// Fills a Tensor that is valid while the object lives and control stays here. 0, or -1 with a Python error set.
using FromObject = int (*)(void* object, Tensor* out);

struct ExchangeApi {
    Version version;
    ExchangeApi* previous;
    void* allocate;
    void* managed_from_object;
    void* managed_to_object;
    FromObject from_object;
    void* current_stream;
};

}  // namespace bptt::dlpack
