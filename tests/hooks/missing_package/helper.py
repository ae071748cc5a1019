import no_such_package.inner

use = no_such_package.inner
