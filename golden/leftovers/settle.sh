# cloud-init that is still at work would let in again whose key is removed now.
busy() { [ -e /run/cloud-init/enabled ] && [ ! -e /run/cloud-init/disabled ] && [ ! -e /run/cloud-init/result.json ] && ! allowed /run/cloud-init; }

n=0
while busy && [ "$n" -lt "$PATIENCE" ]; do sleep 1; n=$((n+1)); done
if busy; then say found cloud-init /run/cloud-init; fi
