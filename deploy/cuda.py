"""The little of NVIDIA's driver that a runner needs: which GPU this is, its memory, and copies; through ctypes."""

import ctypes
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p

import numpy as np

from deploy.runners import DeployError, Frame, RuntimeMissing

LIBRARY = "libcuda.so.1"
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*

# Without the types ctypes would cut addresses off at 32 bits.
SIGNATURES: dict[str, tuple[type, ...]] = {
    "cuInit": (c_uint,),
    "cuDeviceGet": (c_void_p, c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (c_void_p, c_int, c_int),
    "cuDevicePrimaryCtxRetain": (c_void_p, c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxSetCurrent": (c_void_p,),
    "cuStreamCreate": (c_void_p, c_uint),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamSynchronize": (c_void_p,),
    "cuMemAlloc_v2": (c_void_p, c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
}


class Gpu:
    """The first NVIDIA GPU: its name, its compute capability as "8.9", and a stream on it.

    runtime: the package that asks, for the error. Raises RuntimeMissing where there is no GPU or no driver.
    """

    def __init__(self, runtime: str) -> None:
        try:
            self._driver = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise RuntimeMissing(runtime, f"finds no NVIDIA driver ({LIBRARY})", "needs an NVIDIA GPU") from error
        for name, types in SIGNATURES.items():
            getattr(self._driver, name).argtypes = types
        device, context, stream = c_int(), c_void_p(), c_void_p()
        if self._driver.cuInit(0) or self._driver.cuDeviceGet(byref(device), 0):
            raise RuntimeMissing(runtime, "finds no NVIDIA GPU", "needs an NVIDIA GPU")
        self._device = device.value
        text = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", text, len(text), self._device)
        self.name = text.value.decode()
        self.compute_capability = f"{self._attribute(MAJOR)}.{self._attribute(MINOR)}"
        self._call("cuDevicePrimaryCtxRetain", byref(context), self._device)
        self._call("cuCtxSetCurrent", context)
        self._call("cuStreamCreate", byref(stream), 0)
        self.stream: int = stream.value or 0

    def allocate(self, size: int) -> int:
        """Address of `size` new bytes on the GPU."""
        address = c_uint64()
        self._call("cuMemAlloc_v2", byref(address), size)
        return address.value

    def free(self, address: int) -> None:
        self._call("cuMemFree_v2", address)

    def upload(self, address: int, values: Frame) -> None:
        """Begins a copy to the GPU; `values` are contiguous and stay until `wait`."""
        self._call("cuMemcpyHtoDAsync_v2", address, values.ctypes.data, values.nbytes, self.stream)

    def download(self, address: int, shape: tuple[int, ...]) -> Frame:
        """Copies float32 values of `shape` from the GPU, after all that was begun before."""
        values = np.empty(shape, np.float32)
        self._call("cuMemcpyDtoHAsync_v2", values.ctypes.data, address, values.nbytes, self.stream)
        self.wait()
        return values

    def wait(self) -> None:
        self._call("cuStreamSynchronize", self.stream)

    def close(self) -> None:
        self._call("cuStreamDestroy_v2", self.stream)
        self._call("cuDevicePrimaryCtxRelease_v2", self._device)

    def _attribute(self, number: int) -> int:
        value = c_int()
        self._call("cuDeviceGetAttribute", byref(value), number, self._device)
        return value.value

    def _call(self, name: str, *arguments: object) -> None:
        if code := getattr(self._driver, name)(*arguments):
            raise DeployError(f"{name} failed on the GPU with CUDA error {code}")
