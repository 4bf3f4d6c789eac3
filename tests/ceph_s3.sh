#!/bin/bash
# One monitor, one OSD and one object gateway of Ceph on loopback, with the user test/testsecret.
# usage: ceph_s3.sh DIR PORT    data in DIR, process ids in DIR/run; S3 at PORT, the monitor at PORT+1
set -euo pipefail
D=$(realpath -m "$1"); PORT=$2; MONP=$((PORT+1)); STORE=${STORE:-bluestore}
mkdir -p "$D"/{run,mon,osd,rgw,log}
export CEPH_CONF="$D/ceph.conf" CEPH_ARGS=
fresh=0
if [ ! -e "$D/ceph.conf" ]; then
fresh=1
FSID=$(cat /proc/sys/kernel/random/uuid)
cat > "$D/ceph.conf" <<E
[global]
fsid = $FSID
mon_host = [v2:127.0.0.1:$MONP/0]
ms_bind_ipv4 = true
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = $D/run
admin_socket = $D/run/\$name.\$pid.asok
log_file = $D/log/\$name.log
log_to_stderr = false
log_to_file = true
keyring = $D/keyring
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_max_pg_per_osd = 1000
[mon]
mon_data = $D/mon
mon_data_avail_warn = 1
mon_data_avail_crit = 1
mon_data_size_warn = 100000000000
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
mon_tick_interval = 1
[osd]
osd_data = $D/osd
osd_objectstore = $STORE
osd_memory_target = 939524096
osd_scrub_auto_repair = false
bluestore_block_size = ${BLOCK_SIZE:-4294967296}
bluestore_fsck_on_mount = false
osd_heartbeat_grace = 20
[client.rgw]
ms_mon_client_mode = crc
ms_mon_service_mode = crc
rgw_data = $D/rgw
rgw_frontends = beast endpoint=127.0.0.1:$PORT tcp_nodelay=1
rgw_run_sync_thread = false
rgw_enable_usage_log = false
rgw_enable_ops_log = false
rgw_dns_name =
rgw_gc_max_objs = 32
rgw_override_bucket_index_max_shards = 1
rgw_region_root_pool = .rgw.root
E
: > "$D/keyring"
monmaptool --create --fsid $FSID --addv a "[v2:127.0.0.1:$MONP/0]" "$D/monmap" >/dev/null
ceph-mon --mkfs -i a --monmap "$D/monmap" 
fi
ceph-mon -i a --pid-file "$D/run/mon.pid"
if [ $fresh = 1 ]; then
OSDU=$(cat /proc/sys/kernel/random/uuid)
ceph osd new $OSDU >/dev/null
ceph-osd -i 0 --mkfs --osd-uuid $OSDU 2>>"$D/log/mkfs.err"
ceph osd crush add-bucket h1 host root=default >/dev/null 2>&1
fi
ceph-osd -i 0 --pid-file "$D/run/osd.pid" 2>>"$D/log/mkfs.err"
if [ $fresh = 1 ]; then
for i in $(seq 100); do ceph osd stat -f json 2>/dev/null | grep -q '"num_up_osds":1' && break; sleep 0.1; done
radosgw-admin user create --uid=test --display-name=test --access-key=test --secret-key=testsecret >/dev/null 2>>"$D/log/mkfs.err"
fi
radosgw -n client.rgw --pid-file "$D/run/rgw.pid"
