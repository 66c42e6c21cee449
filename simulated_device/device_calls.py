"""Device queries of a runtime library, and its errors' names. The current device is number 0 and the only one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulated_device.calls import as_int, common, write_int
from simulated_device.status import CallError, Status

if TYPE_CHECKING:
    from simulated_device.runtime import Runtime


def target_of(runtime: Runtime[Any], number: int) -> Any:
    """The target of device ``number``; CallError if there is no such device."""
    if as_int(number) != 0:
        raise CallError(Status.INVALID_DEVICE)
    return runtime.device.target


@common("{}GetDeviceCount")
def _get_device_count(runtime: Runtime[Any], pointer: int) -> None:
    write_int(pointer, int(bool(runtime.devices)))
    _ = runtime.device


@common("{}GetDevice")
def _get_device(runtime: Runtime[Any], pointer: int) -> None:
    _ = runtime.device
    write_int(pointer, 0)


@common("{}SetDevice")
def _set_device(runtime: Runtime[Any], number: int) -> None:
    target_of(runtime, number)


@common("{}DeviceGetAttribute")
def _device_get_attribute(runtime: Runtime[Any], pointer: int, attribute: int, number: int) -> None:
    values = runtime.attributes(target_of(runtime, number))
    if as_int(attribute) not in values:
        raise CallError(Status.INVALID_VALUE)
    write_int(pointer, values[as_int(attribute)])


@common("{}DeviceSynchronize")
def _device_synchronize(runtime: Runtime[Any]) -> None:
    _ = runtime.device
    runtime.check_alive()


@common("{}RuntimeGetVersion", "{}DriverGetVersion")
def _get_version(runtime: Runtime[Any], pointer: int) -> None:
    write_int(pointer, runtime.version)


@common("{}GetErrorName")
def _get_error_name(runtime: Runtime[Any], code: int) -> int:
    return runtime.text(runtime.error_name(Status(as_int(code))))


@common("{}GetErrorString")
def _get_error_string(runtime: Runtime[Any], code: int) -> int:
    return runtime.text(runtime.error_text(Status(as_int(code))))
