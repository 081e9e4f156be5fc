# Gives volumes to claims of the class `standard`, each a folder of the node, and takes them back with their claims.
# Runs in a node, beside its kubelet, as long as the node does.
#   sh volumes.sh STATE NODE KUBECTL KUBECONFIG: the cluster's folder, its node, and how to ask its API server
set -u
state=$1 node=$2 kubectl=$3 kubeconfig=$4
kube() { "$kubectl" --kubeconfig "$kubeconfig" "$@"; }

# provide UID NAMESPACE NAME SIZE MODE: a volume for one claim; nothing where there is one.
provide() {
  mkdir -p "$state/volumes/$1"
  kube create --validate=false --filename=- <<END
apiVersion: v1
kind: PersistentVolume
metadata:
  name: pvc-$1
  annotations: {pv.kubernetes.io/provisioned-by: sealane.test/folder}
spec:
  storageClassName: standard
  persistentVolumeReclaimPolicy: Delete
  capacity: {storage: $4}
  accessModes: [$5]
  claimRef: {apiVersion: v1, kind: PersistentVolumeClaim, namespace: $2, name: $3, uid: $1}
  local: {path: $state/volumes/$1}
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [$node]}]
END
}

# reclaim: takes back the volumes whose claims are gone.
reclaim() {
  kube get pv --output=jsonpath='{range .items[?(@.status.phase=="Released")]}{.metadata.name}{"\n"}{end}' |
    while read -r volume; do
      rm -rf "$state/volumes/${volume#pvc-}"
      kube delete --wait=false "pv/$volume"
    done
}

claim='{.object.metadata.uid}|{.object.metadata.namespace}|{.object.metadata.name}|{.object.spec.storageClassName}'
claim="$claim|{.object.spec.resources.requests.storage}|{.object.spec.accessModes[0]}|{.object.status.phase}"
# A watch ends now and then, and with the API server.
while :; do
  reclaim
  kube get pvc --all-namespaces --watch --output-watch-events --output=jsonpath="{.type}|$claim{\"\n\"}" |
    while IFS='|' read -r event uid namespace name class size mode phase; do
      [ "$class" = standard ] || continue
      if [ "$event" = DELETED ]; then
        kube wait "pv/pvc-$uid" --for=jsonpath='{.status.phase}'=Released --timeout=60s && reclaim
      elif [ "$phase" = Pending ]; then
        provide "$uid" "$namespace" "$name" "$size" "$mode"
      fi
    done
  sleep 1
done
