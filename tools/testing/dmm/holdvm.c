// SPDX-License-Identifier: GPL-2.0-only
/*
 * Keep one idle virtual machine open until killed.
 *
 * The first VM that is created and the last one that is destroyed flip static
 * keys, and patching code that another CPU executes can go wrong under
 * multi-threaded emulation.  With a VM that is always there, nothing flips.
 */
#include <err.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/kvm.h>

int main(void)
{
	int kvm, vm;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		err(1, "/dev/kvm");
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		err(1, "KVM_CREATE_VM");
	if (ioctl(vm, KVM_CREATE_VCPU, 0) < 0)
		err(1, "KVM_CREATE_VCPU");
	/* Tell whoever waits for it. */
	if (daemon(0, 0))
		err(1, "daemon");
	for (;;)
		pause();
}
