#!/usr/bin/env bash
# Unpacks SimpleSAMLphp and PHP from Debian's packages into .cache/simplesamlphp, without
# installing anything: a real identity provider for the tests of authn/saml.
# Never fails: the tests that need it say so themselves.
set -uo pipefail
cd "$(dirname "$0")/.."
target=$PWD/.cache/simplesamlphp
if [ -x "$target/php" ]; then
  exit 0
fi
give_up() {
  echo "SimpleSAMLphp cannot be had here ($1): the tests against it are skipped" >&2
  rm -rf "$target.new"
  exit 0
}
command -v apt-get >/dev/null && command -v dpkg >/dev/null || give_up "no apt-get"
rm -rf "$target.new" && mkdir -p "$target.new/debs" "$target.new/root"
if [ -z "$(apt-cache policy simplesamlphp 2>/dev/null)" ]; then
  apt-get update -q >/dev/null 2>&1 </dev/null
fi
php="php8.2-cli php8.2-xml php8.2-sqlite3 php8.2-curl php8.2-common"
missing=$(apt-get install --print-uris -y --no-install-recommends $php 2>/dev/null </dev/null | sed -nE "s/^'[^']*' ([^_]+)_.*/\1/p")
packages=$(printf '%s\n' $php $missing simplesamlphp | sort -u)
(cd "$target.new/debs" && apt-get download -q $packages >/dev/null 2>&1 </dev/null) || give_up "apt-get download failed"
for deb in "$target.new"/debs/*.deb; do
  dpkg -x "$deb" "$target.new/root" || give_up "dpkg -x failed"
done
rm -r "$target.new/debs"
extensions=$(ls -d "$target.new"/root/usr/lib/php/2*) || give_up "no PHP in the packages"
cat >"$target.new/php" <<SCRIPT
#!/usr/bin/env bash
# PHP with what SimpleSAMLphp needs of it, and no configuration of the machine's.
root=\$(cd "\$(dirname "\$0")" && pwd)/root
export LD_LIBRARY_PATH=\$root/usr/lib/x86_64-linux-gnu:\$root/usr/lib/aarch64-linux-gnu:\$root/lib/x86_64-linux-gnu
flags=(-n -d "extension_dir=\$root/usr/lib/php/$(basename "$extensions")")
for name in ctype dom iconv mbstring simplexml xml xmlreader xmlwriter curl pdo sqlite3 pdo_sqlite posix tokenizer; do
  if [ -f "\$root/usr/lib/php/$(basename "$extensions")/\$name.so" ]; then
    flags+=(-d "extension=\$name")
  fi
done
exec "\$root/usr/bin/php8.2" "\${flags[@]}" -d session.save_path=/tmp -d date.timezone=UTC "\$@"
SCRIPT
chmod +x "$target.new/php"
"$target.new/php" -r 'exit(extension_loaded("dom") && extension_loaded("openssl") ? 0 : 1);' || give_up "PHP does not run"
rm -rf "$target" && mv "$target.new" "$target"
